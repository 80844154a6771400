"""Recurrent layers on the card."""

from libc.stdint cimport int32_t, uint16_t, uint32_t

from .axmodel cimport LoadedModel
from .buffer cimport DeviceBuffer, PinnedBuffer
from .call_stream cimport CallStream, model_handle
from .pass_buffers cimport PassBuffers, group_io
from .runtime cimport Card, axclError, axclrtEngineIO
from .step cimport Step, state_part


cdef struct width_io:
    int width
    uint32_t *numbers       # the shape group's number on the card, in each recurrent layer
    axclrtEngineIO *io      # [1 + part, recurrent layer]; the first ones: on the pass's own hidden states
    char *input             # hidden states of a part that is not the whole pass
    char *output


cdef class StateLayers:
    cdef readonly int num_layers        # that are recurrent
    cdef readonly int num_slots
    cdef readonly int max_parts
    cdef readonly tuple where           # their numbers in the model
    cdef Card card
    cdef list pairs                     # [slot, layer] of (K, V) DeviceBuffers
    cdef list buffers
    cdef list bindings
    cdef char **k
    cdef char **v
    cdef size_t *k_bytes
    cdef size_t *v_bytes
    cdef model_handle *handles
    cdef width_io *widths
    cdef int num_widths
    cdef int num_axes
    cdef size_t hidden_bytes
    cdef PinnedBuffer masks             # [part, widest]: 1 for each token, 0 behind them
    cdef PinnedBuffer indices           # [part, axis, width]
    cdef void **mask_of                 # on the card, by width and part
    cdef void **indices_of
    cdef state_part *parts              # of the step that was prepared
    cdef int num_parts
    cdef bint whole                     # one part, as wide as the pass
    cdef uint32_t k_in
    cdef uint32_t v_in
    cdef uint32_t k_out
    cdef uint32_t v_out

    cdef axclrtEngineIO _bind_layer(
        self, LoadedModel model, int group, int layer, DeviceBuffer mask, DeviceBuffer indices, DeviceBuffer source,
        DeviceBuffer target) except NULL
    cdef size_t index_bytes(self, int width) noexcept nogil
    cdef int prepare(self, Step step, group_io *group, const uint32_t *positions) except -1
    cdef int _width_of(self, const state_part *part) noexcept nogil
    cdef axclError upload(self, CallStream stream) noexcept nogil
    cdef axclError bind(self) noexcept nogil
    cdef axclError submit(self, CallStream stream, int layer, char *source, char *target) noexcept nogil

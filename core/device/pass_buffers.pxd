"""Buffers of a pass, bound to layers and head."""

from libc.stdint cimport int32_t, uint32_t

from .buffer cimport DeviceBuffer, PinnedBuffer
from .call_stream cimport model_handle
from .kv_buffers cimport KVBuffers
from .runtime cimport Card, axclError, axclrtEngineIO


cdef struct group_io:
    uint32_t *numbers       # the shape group's number on the card, in each layer
    int32_t width
    int32_t history
    int32_t axes            # of the positions: 1 or 3
    size_t mask_bytes
    void *mask
    void *window_mask       # of layers with a sliding window; NULL: no layer has one
    void *indices
    void *hidden[2]         # layers alternate between these
    char *k_rows            # K and V of this pass, where they are not written in place
    char *v_rows
    axclrtEngineIO *io      # one for each bank and layer with attention


cdef class PassBuffers:
    cdef Card card
    cdef list layers
    cdef KVBuffers kv
    cdef readonly PinnedBuffer mask
    cdef readonly PinnedBuffer window_mask  # None: no layer has a sliding window
    cdef tuple windowed         # of each layer, whether it has a sliding window
    cdef readonly PinnedBuffer indices
    cdef readonly PinnedBuffer hidden
    cdef dict device            # buffers shared by groups, by role and size
    cdef list bindings          # keeps the IO objects alive

    cdef group_io *groups
    cdef int num_groups
    cdef model_handle *layer_handles
    cdef int num_layers
    cdef list attention         # numbers of the layers with K and V of each token
    cdef int num_attention
    cdef size_t row_bytes
    cdef size_t hidden_bytes
    cdef uint32_t k_out
    cdef uint32_t v_out

    cdef axclError bind_rows(self, group_io *group, int bank, bint in_place, size_t first_row) noexcept nogil


cdef void *handle(DeviceBuffer buffer) noexcept

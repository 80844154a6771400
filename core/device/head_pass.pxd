"""The head on the card."""

from libc.stdint cimport int32_t, uint32_t

from .axmodel cimport LoadedModel
from .buffer cimport DeviceBuffer, PinnedBuffer
from .call_stream cimport CallStream, model_handle
from .pass_buffers cimport PassBuffers
from .runtime cimport axclError, axclrtEngineIO


cdef struct head_io:
    uint32_t index          # the head's shape group on the card
    int rows                # hidden rows it takes at once
    char *input
    void *output
    axclrtEngineIO io


cdef class HeadPass:
    cdef LoadedModel head
    cdef model_handle handle
    cdef list bindings          # keeps the IO objects alive
    cdef head_io *groups        # by growing number of rows
    cdef int num_groups
    cdef axclrtEngineIO direct  # of the one-row group: its input is what decode's last layer writes
    cdef size_t hidden_bytes
    cdef int32_t *wanted        # queries whose logits are wanted, by slot
    cdef readonly int num_slots
    cdef PinnedBuffer logits
    cdef size_t logits_bytes    # of one slot
    cdef readonly int width     # values of one slot
    cdef int num_values         # of them that mean something
    cdef readonly int vocab_size
    cdef str dtype
    cdef list views             # of the slots
    cdef object token_ids       # of a trimmed head's logits, or None
    cdef object spread          # [slot, token] of a trimmed head; what it does not give is -inf

    cdef axclrtEngineIO _bind_group(self, PassBuffers buffers, int group, int source, int logits, DeviceBuffer hidden,
                                    DeviceBuffer out) except NULL
    cdef axclError submit(self, CallStream stream, char *hidden, bint single, int count) noexcept nogil
    cdef axclError submit_group(self, CallStream stream, char *hidden, bint single, head_io *head, int slot,
                                int count) noexcept nogil

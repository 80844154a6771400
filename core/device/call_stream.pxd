"""Calls into the card's stream."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from .runtime cimport Card, axclError, axclrtEngineIO, axclrtMemcpyKind


cdef enum:
    CALL_UPLOAD, CALL_BIND, CALL_LAYER, CALL_ROWS, CALL_HEAD, CALL_DOWNLOAD, CALL_BORDER, CALL_IMAGES, CALL_WAIT


cdef struct model_handle:
    uint64_t model
    uint64_t context


cdef class CallStream:
    cdef readonly Card card
    cdef bint use_async
    cdef bint abandoned         # nobody waits for what runs here any more: no further call is made
    cdef int kind               # CALL_*: what is being submitted, for `give_up`

    cdef axclError copy(self, void *target, const void *source, size_t nbytes, axclrtMemcpyKind way) noexcept nogil
    cdef axclError execute(self, const model_handle *handle, uint32_t group, axclrtEngineIO io) noexcept nogil
    cdef axclError wait(self, int32_t timeout_ms) noexcept nogil
    cdef int give_up(self, axclError code) except -1

"""K and V of all banks on the card."""

from libc.stdint cimport int32_t

from .call_stream cimport CallStream
from .runtime cimport axclError


cdef class KVBuffers:
    cdef readonly int num_banks
    cdef readonly int num_rows
    cdef int num_layers
    cdef size_t row_bytes
    cdef list pairs             # [bank * num_layers + layer] = (K, V), as the handles below
    cdef char **k
    cdef char **v

    cdef axclError move_run(
        self, CallStream stream, int bank, size_t target, size_t source, size_t nbytes) noexcept nogil

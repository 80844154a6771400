"""Rows of pictures in a pass."""

from libc.stdint cimport int32_t, uint16_t


cdef extern from "image_rows.h" nogil:
    void ax_add_rows(uint16_t *, size_t, const int32_t *, const float *, size_t)


cdef class ImageRows:
    cdef int32_t[::1] queries
    cdef uint16_t[:, ::1] rows
    cdef float[:, :, ::1] added

    cdef int fill(self, uint16_t *hidden, int width, int num_queries) except -1
    cdef bint adds(self, int layer) noexcept nogil
    cdef void add(self, int layer, uint16_t *hidden) noexcept nogil

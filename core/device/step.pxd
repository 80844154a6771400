"""The one struct that crosses from plan to program: which tokens a pass carries, what each sees, where it is stored."""

from libc.stdint cimport int32_t, uint16_t


cdef extern from "mask.h" nogil:
    ctypedef struct ax_query:
        int32_t token
        int32_t position
        int32_t row
        int32_t parent
        int32_t view
        int32_t logits

    void ax_mask_window(
        uint16_t *, const uint16_t *, int32_t, int32_t, const ax_query *, int32_t, const int32_t *, int32_t)
    int ax_mask_fill(uint16_t *, int32_t, int32_t, const ax_query *, int32_t, const int32_t *, const int32_t *, int32_t)


cdef struct state_part:
    int first               # of its queries
    int count
    int source              # slots of states
    int target


cdef class Step:
    cdef ax_query *queries
    cdef int32_t *runs
    cdef int32_t *views
    cdef state_part *parts
    cdef int32_t *axes          # of each query, its height and width (its time is its position)
    cdef readonly int capacity
    cdef int room
    cdef readonly int num_queries
    cdef readonly int num_views
    cdef readonly int num_logits
    cdef readonly int num_parts
    cdef public int group
    cdef public int bank
    cdef public object images   # ImageRows, or None

    cpdef int add_view(self, int start, int stop) except -1
    cpdef int extend_view(self, int start, int stop) except -1
    cpdef int add_view_rows(self, const int32_t[::1] rows) except -1
    cdef int _add_run(self, int start, int stop) except -1
    cpdef int add(self, int token, int position, int row, int parent, int view, bint logits) except -1

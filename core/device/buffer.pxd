"""Owners of memory: on the card (handles) and pinned in the host (zero-copy views)."""

from .runtime cimport Card


cdef class DeviceBuffer:
    cdef object __weakref__
    cdef readonly Card card
    cdef void *handle
    cdef readonly size_t nbytes


cdef class PinnedBuffer:
    cdef object __weakref__
    cdef readonly Card card
    cdef char *data
    cdef readonly size_t nbytes
    cdef readonly int num_views
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]

"""Models loaded on the card, and the bindings of their inputs and outputs."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from .runtime cimport Card, axclrtEngineIO, axclrtEngineIOInfo


cdef class LoadedModel:
    cdef object __weakref__
    cdef readonly Card card
    cdef readonly str path
    cdef readonly list inputs
    cdef readonly list outputs
    cdef readonly int num_groups
    cdef uint64_t model
    cdef uint64_t context
    cdef axclrtEngineIOInfo info
    cdef object bindings


cdef class Binding:
    cdef object __weakref__
    cdef readonly LoadedModel model
    cdef readonly uint32_t group
    cdef axclrtEngineIO io
    cdef dict held

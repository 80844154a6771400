"""Owners of memory: on the card (handles) and pinned in the host (zero-copy NumPy views).

One owner, many views: a view keeps its buffer alive through Python's buffer protocol, and `close()` refuses while one
lives, so no pointer that Python can reach ever dangles.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memset

from .runtime cimport (
    AXCL_COPY_DEVICE_TO_HOST, AXCL_COPY_HOST_TO_DEVICE, AXCL_MEM_NORMAL_ONLY, Card, axclError)

import numpy as np


@cython.no_gc_clear
cdef class DeviceBuffer:
    """`nbytes` of the card's memory. Its handle is not a host pointer; only the runtime may use it."""

    def __init__(self, card: Card, nbytes: int, *, zero: bool = False):
        """Allocates. `zero` fills with zeros: every KV buffer needs it, a NaN in a hidden row survives the mask."""
        cdef axclError code
        if nbytes < 1:
            raise ValueError(f"a device buffer needs at least one byte, not {nbytes}")
        card.require_open()
        self.card = card
        self.nbytes = nbytes
        with nogil:
            code = card.api.axclrtMalloc(&self.handle, self.nbytes, AXCL_MEM_NORMAL_ONLY)
        card.check("axclrtMalloc", code)
        card.buffers.add(self)
        if zero:
            self.fill(0)

    num_views = 0

    def fill(self, unsigned char value) -> None:
        """Sets every byte to `value`."""
        cdef axclError code
        self._require_open()
        with nogil:
            code = self.card.api.axclrtMemset(self.handle, value, self.nbytes)
        self.card.check("axclrtMemset", code)

    def write(self, data, offset: int = 0) -> None:
        """Copies a C-contiguous buffer's bytes to `offset`. Synchronous: for loading and probes, never per token."""
        self._copy(data, offset, True)

    def read(self, dtype="uint16", count: int = -1, offset: int = 0):
        """A fresh NumPy array of `count` items (-1: all that follow) from byte `offset`. Synchronous."""
        dtype = np.dtype(dtype)
        out = np.empty((self.nbytes - offset) // dtype.itemsize if count < 0 else count, dtype)
        self._copy(out, offset, False)
        return out

    def _copy(self, data, size_t offset, bint upload):
        cdef Py_buffer view
        cdef axclError code = 0
        cdef char *memory
        self._require_open()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE if upload else PyBUF_WRITABLE)
        try:
            if offset > self.nbytes or <size_t>view.len > self.nbytes - offset:
                raise ValueError(f"{view.len} bytes at {offset} do not fit a buffer of {self.nbytes}")
            with nogil:
                memory = <char *>self.handle + offset
                if view.len > 0 and upload:
                    code = self.card.api.axclrtMemcpy(memory, view.buf, view.len, AXCL_COPY_HOST_TO_DEVICE)
                elif view.len > 0:
                    code = self.card.api.axclrtMemcpy(view.buf, memory, view.len, AXCL_COPY_DEVICE_TO_HOST)
            self.card.check("axclrtMemcpy", code)
        finally:
            PyBuffer_Release(&view)

    def _require_open(self):
        if self.handle == NULL:
            raise ValueError("this device buffer is closed")

    def close(self) -> None:
        """Frees the memory. Closing twice is harmless."""
        cdef void *handle = self.handle
        self.handle = NULL
        self.card.free(self, handle, False)

    def __dealloc__(self):
        if self.card is not None:
            self.card.give_back(self.handle, False)


@cython.no_gc_clear
cdef class PinnedBuffer:
    """`nbytes` of pinned host memory, zeroed; NumPy views of it cost nothing: `np.frombuffer(buffer, dtype)`."""

    def __init__(self, card: Card, nbytes: int):
        cdef axclError code
        cdef void *data = NULL
        if nbytes < 1:
            raise ValueError(f"a pinned buffer needs at least one byte, not {nbytes}")
        card.require_open()
        self.card = card
        self.nbytes = nbytes
        with nogil:
            code = card.api.axclrtMallocHost(&data, self.nbytes)
        card.check("axclrtMallocHost", code)
        self.data = <char *>data
        memset(self.data, 0, self.nbytes)
        card.buffers.add(self)

    def view(self, dtype, shape=-1):
        """A writable NumPy view in `dtype`, reshaped; it keeps this buffer alive and open."""
        return np.frombuffer(self, dtype=dtype).reshape(shape)

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.data == NULL:
            raise BufferError("this pinned buffer is closed")
        self.shape[0] = self.nbytes
        self.strides[0] = 1
        view.buf = self.data
        view.obj = self
        view.len = self.nbytes
        view.itemsize = 1
        view.readonly = 0
        view.format = 'B'
        view.ndim = 1
        view.shape = self.shape
        view.strides = self.strides
        view.suboffsets = NULL
        view.internal = NULL
        self.num_views += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.num_views -= 1

    def close(self) -> None:
        """Frees the memory. Raises BufferError while views live. Closing twice is harmless."""
        cdef void *data = self.data
        if self.num_views:
            raise BufferError(f"{self.num_views} view(s) of this pinned buffer are alive; drop them before closing it")
        self.data = NULL
        self.card.free(self, data, True)

    def __dealloc__(self):
        if self.card is not None:  # views hold a reference, so none can be alive here
            self.card.give_back(self.data, True)

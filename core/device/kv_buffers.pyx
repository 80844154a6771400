"""K and V of all banks on the card: one pair of buffers a bank and layer, [R, D] bf16, and how rows move in them."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t

from .buffer cimport DeviceBuffer
from .call_stream cimport CALL_ROWS, CallStream
from .runtime cimport AXCL_COPY_DEVICE_TO_DEVICE, Card, axclError

import numpy as np


cdef class KVBuffers:
    """`num_banks` caches of `num_rows` rows of `row_bytes` in each of `num_layers` layers, zeroed: a NaN in a hidden
    row survives the mask."""

    def __init__(self, card: Card, int num_banks, int num_layers, int num_rows, size_t row_bytes):
        cdef int cell
        self.num_banks, self.num_layers, self.num_rows, self.row_bytes = num_banks, num_layers, num_rows, row_bytes
        self.pairs = [
            tuple(DeviceBuffer(card, num_rows * row_bytes, zero=True) for _ in "KV")
            for _ in range(num_banks * num_layers)
        ]
        self.k = <char **>PyMem_Calloc(len(self.pairs), sizeof(char *))
        self.v = <char **>PyMem_Calloc(len(self.pairs), sizeof(char *))
        if self.k == NULL or self.v == NULL:
            raise MemoryError
        for cell, (k, v) in enumerate(self.pairs):
            self.k[cell], self.v[cell] = <char *>(<DeviceBuffer>k).handle, <char *>(<DeviceBuffer>v).handle

    def pair(self, bank: int, layer: int) -> tuple:
        """(K, V) of one layer: DeviceBuffers."""
        return self.pairs[bank * self.num_layers + layer]

    @cython.boundscheck(False)  # of `old` and `new`, whose lengths are compared first
    def move(self, CallStream stream, int bank, const int32_t[::1] old, const int32_t[::1] new, int32_t timeout_ms):
        """Copies K and V of rows `old` to rows `new` in every layer, on the card, and waits: see Program.move_rows."""
        cdef axclError code = 0
        cdef Py_ssize_t i = 0, first, count = old.shape[0]
        if not 0 <= bank < self.num_banks or new.shape[0] != count:
            raise ValueError(f"bank {bank} of {self.num_banks}; {count} rows to {new.shape[0]}")
        for i in range(count):
            if not 0 <= old[i] < self.num_rows or not 0 <= new[i] < self.num_rows:
                raise ValueError(f"row {old[i]} to row {new[i]}; the bank has {self.num_rows}")
        with nogil:
            i = 0
            while i < count and code == 0:
                first = i
                i += 1
                while i < count and old[i] == old[i - 1] + 1 and new[i] == new[i - 1] + 1:
                    i += 1
                code = self.move_run(stream, bank, new[first] * self.row_bytes, old[first] * self.row_bytes,
                                     (i - first) * self.row_bytes)
            if code == 0:
                code = stream.wait(timeout_ms)
        if code != 0:
            stream.give_up(code)

    cdef axclError move_run(
            self, CallStream stream, int bank, size_t target, size_t source, size_t nbytes) noexcept nogil:
        """Rows side by side; offsets in bytes."""
        cdef axclError code = 0
        cdef int cell
        stream.kind = CALL_ROWS
        for cell in range(bank * self.num_layers, (bank + 1) * self.num_layers):
            code = stream.copy(self.k[cell] + target, self.k[cell] + source, nbytes, AXCL_COPY_DEVICE_TO_DEVICE)
            if code == 0:
                code = stream.copy(self.v[cell] + target, self.v[cell] + source, nbytes, AXCL_COPY_DEVICE_TO_DEVICE)
            if code != 0:
                break
        return code

    def clear(self, bank: int) -> None:
        """Zeros in all rows of a bank."""
        for pair in self.pairs[bank * self.num_layers:(bank + 1) * self.num_layers]:
            for buffer in pair:
                buffer.fill(0)

    def clear_rows(self, bank: int, rows) -> None:
        """Zeros in K and V of these rows (int32) of a bank in every layer."""
        ordered = np.sort(rows)
        runs = np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1) if len(ordered) else []
        zeros = np.zeros(max((run.size for run in runs), default=0) * self.row_bytes, np.uint8)
        for pair in self.pairs[bank * self.num_layers:(bank + 1) * self.num_layers]:
            for run in runs:
                for buffer in pair:
                    buffer.write(zeros[:run.size * self.row_bytes], int(run[0]) * self.row_bytes)

    def drop_last(self) -> None:
        """Frees the last bank's memory."""
        self.num_banks -= 1
        first = self.num_banks * self.num_layers
        for pair in self.pairs[first:]:
            for buffer in pair:
                buffer.close()
        del self.pairs[first:]

    def close(self) -> None:
        """Frees the memory."""
        for pair in self.pairs:
            for buffer in pair:
                buffer.close()

    def __dealloc__(self):
        PyMem_Free(self.k)
        PyMem_Free(self.v)

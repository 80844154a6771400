"""The head on the card: hidden states of the queries that want logits go in, logits come down into slots of pinned
memory; of embedding models normed hidden states in their place."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, uint16_t

from .axmodel cimport Binding, LoadedModel
from .buffer cimport DeviceBuffer, PinnedBuffer
from .call_stream cimport CALL_DOWNLOAD, CALL_HEAD, CallStream
from .pass_buffers cimport PassBuffers, handle
from .runtime cimport (
    AXCL_COPY_DEVICE_TO_DEVICE, AXCL_COPY_DEVICE_TO_HOST, AXCL_TYPE_BF16, AXCL_TYPE_FP32, Card, axclError,
    axclrtEngineIO)

import numpy as np

from ..errors import PackageError
from .shape_groups import find_tensor, head_output

cdef extern from "logits_check.h" nogil:
    int ax_believable_bf16(const uint16_t *, size_t)
    int ax_believable_f32(const float *, size_t)


cdef class HeadPass:
    """`head` behind the layers of `buffers`, with `num_slots` slots for what it gives.

    `wanted[slot]` is the query whose hidden state goes in. `num_tokens`: those that the embedding has; what a padded
    head gives beyond them is no token. `token_ids` and `embeds` as in Program. Raises PackageError where head and
    layers do not fit each other, RuntimeCallError where the card refuses.
    """

    def __init__(self, card: Card, head: LoadedModel, PassBuffers buffers, int num_slots, int num_tokens, token_ids,
                 bint embeds):
        self.head, self.num_slots, self.token_ids = head, num_slots, token_ids
        self.hidden_bytes, self.bindings = buffers.hidden_bytes, []
        self.wanted = <int32_t *>PyMem_Calloc(num_slots, sizeof(int32_t))
        if self.wanted == NULL:
            raise MemoryError
        self._bind(buffers, embeds)
        self.logits = PinnedBuffer(card, self.logits_bytes * num_slots)
        whole = embeds or token_ids is not None
        self.vocab_size = num_tokens if whole else min(self.width, num_tokens)
        self.num_values = self.width if whole else self.vocab_size
        if token_ids is not None:
            minus_inf = 0xff80 if self.dtype == "uint16" else -np.inf
            self.spread = np.full((num_slots, self.vocab_size), minus_inf, self.dtype)
        self._make_views()

    def _make_views(self):
        views = self.logits.view(self.dtype, (self.num_slots, self.width))
        self.views = [views[i, :self.num_values] for i in range(self.num_slots)]

    def _bind(self, PassBuffers buffers, bint embeds):
        """The head in all its groups; fp32 or bf16 logits, possibly of a trimmed vocabulary, or normed hidden states in
        their place."""
        cdef LoadedModel head = self.head
        cdef head_io *bound
        source, logits = find_tensor(head.inputs, "input", head.path), head_output(head, embeds)
        taken, given = head.inputs[source], head.outputs[logits]
        if any(size % self.hidden_bytes for size in taken.sizes) or taken.shapes[0][-1] != self.hidden_bytes // 2:
            raise PackageError(
                f"{head.path}: it takes {taken.shapes[0]}, the layers give rows of"
                f" {self.hidden_bytes // 2}: files of two models?")
        if given.dtype not in (AXCL_TYPE_BF16, AXCL_TYPE_FP32):
            raise PackageError(
                f"{head.path}: logits of runtime data type {given.dtype}; axpress reads bf16 (14) and fp32 (15)")
        self.dtype = "uint16" if given.dtype == AXCL_TYPE_BF16 else "float32"
        self.width = given.shapes[0][-1]
        groups = sorted((size // self.hidden_bytes, group) for group, size in enumerate(taken.sizes))
        self.logits_bytes = given.sizes[groups[0][1]] // groups[0][0]
        self.handle.model, self.handle.context = head.model, head.context
        self.groups = <head_io *>PyMem_Calloc(len(groups), sizeof(head_io))
        if self.groups == NULL:
            raise MemoryError
        self.num_groups = len(groups)
        for i, (rows, group) in enumerate(groups):
            hidden = buffers.shared("head_input", self.hidden_bytes * rows)
            out = buffers.shared("logits", self.logits_bytes * rows)
            bound = &self.groups[i]
            bound.index, bound.rows = group, rows
            bound.input, bound.output = <char *>handle(hidden), handle(out)
            bound.io = self._bind_group(buffers, group, source, logits, hidden, out)
            if rows == 1:
                last = buffers.shared(f"hidden{buffers.num_layers % 2}", self.hidden_bytes)
                self.direct = self._bind_group(buffers, group, source, logits, last, out)

    cdef axclrtEngineIO _bind_group(self, PassBuffers buffers, int group, int source, int logits, DeviceBuffer hidden,
                                    DeviceBuffer out) except NULL:
        binding = Binding(self.head, group)
        self.bindings.append(binding)
        for i, tensor in enumerate(self.head.inputs):
            binding.set_input(i, hidden if i == source else buffers.shared(f"head_in{i}", tensor.sizes[group]))
        for i, tensor in enumerate(self.head.outputs):  # some heads add the arg-max: nothing may stay unbound
            binding.set_output(i, out if i == logits else buffers.shared(f"head_out{i}", tensor.sizes[group]))
        return (<Binding>binding).io

    cdef axclError submit(self, CallStream stream, char *hidden, bint single, int count) noexcept nogil:
        """The logits of queries `wanted[0..count)` into slots 0..count, in one call where the head takes several.
        `hidden`: their hidden states, on the card; `single`: of one query, in the place where decode leaves it."""
        cdef axclError code
        cdef head_io *head
        cdef int slot = 0, rows, i
        while slot < count:
            i = 0
            while i + 1 < self.num_groups and self.groups[i].rows < count - slot:
                i += 1
            head = &self.groups[i]
            rows = min(head.rows, count - slot)
            code = self.submit_group(stream, hidden, single, head, slot, rows)
            if code != 0:
                return code
            slot += rows
        return 0

    cdef axclError submit_group(self, CallStream stream, char *hidden, bint single, head_io *head, int slot,
                                int count) noexcept nogil:
        cdef axclError code = 0
        cdef size_t nbytes = self.hidden_bytes
        cdef char *logits = self.logits.data + slot * self.logits_bytes
        cdef bint direct = single and head.rows == 1 and self.direct != NULL
        cdef int i
        stream.kind = CALL_HEAD
        for i in range(0 if direct else count):
            if code == 0:
                code = stream.copy(head.input + i * nbytes, hidden + self.wanted[slot + i] * nbytes, nbytes,
                                   AXCL_COPY_DEVICE_TO_DEVICE)
        if code == 0:
            code = stream.execute(&self.handle, head.index, self.direct if direct else head.io)
        if code != 0:
            return code
        stream.kind = CALL_DOWNLOAD
        return stream.copy(logits, head.output, count * self.logits_bytes, AXCL_COPY_DEVICE_TO_HOST)

    def view(self, slot: int):
        """What the head gave the query with this slot: see Program.logits."""
        if self.token_ids is None:
            return self.views[slot]
        self.spread[slot, self.token_ids] = self.views[slot]
        return self.spread[slot]

    def bad(self, count: int) -> list[int]:
        """Which of the first `count` slots hold what cannot be believed: NaN, +inf, or the same for every token."""
        cdef const char *logits
        cdef size_t num_values = self.num_values
        cdef bint wide = self.dtype == "float32", believable
        cdef int slot
        bad = []
        for slot in range(min(count, self.num_slots)):
            logits = self.logits.data + slot * self.logits_bytes
            with nogil:
                if wide:
                    believable = ax_believable_f32(<const float *>logits, num_values)
                else:
                    believable = ax_believable_bf16(<const uint16_t *>logits, num_values)
            if not believable:
                bad.append(slot)
        return bad

    def check_closable(self) -> None:
        """BufferError while somebody else holds a view of the logits."""
        self.views = []
        if self.logits.num_views:
            self._make_views()
            raise BufferError("somebody still holds a view of the logits; drop it, then close")

    def close(self) -> None:
        """Drops the views and frees everything. BufferError while somebody holds one."""
        self.check_closable()
        self.logits.close()
        for binding in self.bindings:
            binding.close()

    def __dealloc__(self):
        PyMem_Free(self.wanted)
        PyMem_Free(self.groups)

"""Buffers of a pass on the card and in pinned memory, and the IO objects that bind them to every layer and the head.

Bound once, when a model is loaded; only decode's K/V outputs change later, into rows of the cache.

Buffers (D bytes-per-row / 2, H hidden, C width, P history; a group with P < R rows is bound to the cache's start):
    mask           [C, P + C] bf16, one for all groups, as large as the largest needs; a second one where layers have
                   sliding windows
    indices        [C] or [3, C] uint32 (decode: [1]), hidden x 2 [C, H] bf16, k_rows and v_rows [C, D] bf16, one set
                   per width
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint32_t

from .axmodel cimport Binding, LoadedModel
from .buffer cimport DeviceBuffer, PinnedBuffer
from .kv_buffers cimport KVBuffers
from .runtime cimport AXCL_TYPE_BF16, AXCL_TYPE_FP32, Card, axclError, axclrtEngineIO

from ..errors import PackageError
from .shape_groups import LAYER_INPUTS, LAYER_OUTPUTS, find_tensor, head_output


cdef class PassBuffers:
    """Of the groups that are `common` to all layers (a CommonShape), for passes over `kv` whose tokens' logits land in
    `logits_slots` slots; without `head` there are none.

    `mask`, `indices` and `hidden` are a pass's uploads, as large as the largest group needs; `logits` its download.
    Raises PackageError where head and layers do not fit each other, RuntimeCallError where the card refuses.
    """

    def __init__(
            self, card: Card, layers: list, head: LoadedModel | None, common, kv: KVBuffers, int logits_slots,
            bint embeds=False, tuple windowed=()):
        cdef int i
        self.windowed = windowed or (False,) * len(layers)
        self.card, self.layers, self.head, self.kv = card, layers, head, kv
        self.num_layers, shape = len(layers), common.shape
        self.attention = [i for i, state in enumerate(common.states) if state is None]
        self.num_attention = len(self.attention)
        self.row_bytes, self.hidden_bytes = 2 * shape.kv_dim, 2 * shape.hidden
        self.device, self.bindings = {}, []
        groups = shape.decode + shape.chunks
        width = max(group.width for group in groups)
        self.mask = PinnedBuffer(card, max(group.mask_bytes for group in groups))
        if any(self.windowed):
            self.window_mask = PinnedBuffer(card, self.mask.nbytes)
        self.indices = PinnedBuffer(card, 4 * width * shape.axes)
        self.hidden = PinnedBuffer(card, self.hidden_bytes * width)
        self.layer_handles = <model_handle *>PyMem_Calloc(self.num_layers, sizeof(model_handle))
        self.groups = <group_io *>PyMem_Calloc(len(groups), sizeof(group_io))
        if self.layer_handles == NULL or self.groups == NULL:
            raise MemoryError
        self.num_groups = len(groups)
        for i in range(self.num_layers):
            self.layer_handles[i].model = (<LoadedModel>layers[i]).model
            self.layer_handles[i].context = (<LoadedModel>layers[i]).context
        self._bind_groups(groups, common.numbers, shape.axes)
        if head is not None:
            self._bind_heads(shape.hidden, embeds)
            self.logits = PinnedBuffer(card, self.logits_bytes * logits_slots)

    def _shared(self, role: str, size_t nbytes) -> DeviceBuffer:
        """The buffer of this size for this role, which groups share: each is bound to its start, with the bytes that
        the group asks for, as the vendor's runner does."""
        if (role, nbytes) not in self.device:
            self.device[role, nbytes] = DeviceBuffer(self.card, nbytes, zero=True)
        return self.device[role, nbytes]

    def _bind_groups(self, groups, numbers, int axes):
        cdef group_io *bound
        cdef int i, g
        cdef int num_cells = self.kv.num_banks * self.num_attention
        first = self.layers[self.attention[0]]
        tensors = {name: find_tensor(first.inputs, name, first.path) for name in LAYER_INPUTS}
        tensors |= {name: find_tensor(first.outputs, name, first.path) for name in LAYER_OUTPUTS}
        self.k_out, self.v_out = tensors["K_cache_out"], tensors["V_cache_out"]
        for g, group in enumerate(groups):
            bound = &self.groups[g]
            bound.width, bound.history = group.width, group.history
            bound.axes = axes if group.width > 1 else 1
            buffers = {
                "masks": [self._shared("mask", self.mask.nbytes)],
                "indices": self._shared("indices", 4 * bound.width * bound.axes),
                "hidden": [self._shared(f"hidden{i}", self.hidden_bytes * group.width) for i in range(2)],
                "rows": [self._shared(f"{n}_rows", self.row_bytes * group.width) for n in "kv"],
            }
            if self.window_mask is not None:
                buffers["masks"].append(self._shared("window_mask", self.mask.nbytes))
            bound.mask_bytes = group.mask_bytes
            bound.mask, bound.indices = handle(buffers["masks"][0]), handle(buffers["indices"])
            if self.window_mask is not None:
                bound.window_mask = handle(buffers["masks"][1])
            for i in range(2):
                bound.hidden[i] = handle(buffers["hidden"][i])
            bound.k_rows, bound.v_rows = <char *>handle(buffers["rows"][0]), <char *>handle(buffers["rows"][1])
            bound.io = <axclrtEngineIO *>PyMem_Calloc(num_cells, sizeof(axclrtEngineIO))
            bound.numbers = <uint32_t *>PyMem_Calloc(self.num_layers, sizeof(uint32_t))
            if bound.io == NULL or bound.numbers == NULL:
                raise MemoryError
            for i in range(self.num_layers):
                bound.numbers[i] = numbers[i][g]
            for i in range(num_cells):
                layer = self.attention[i % self.num_attention]
                bound.io[i] = (<Binding>self._bind_layer(numbers[layer][g], buffers, i, tensors)).io

    def _bind_layer(self, int group, dict buffers, int cell, dict tensors) -> Binding:
        bank, among = divmod(cell, self.num_attention)
        layer = self.attention[among]
        binding = Binding(self.layers[layer], group)
        self.bindings.append(binding)
        k, v = self.kv.pair(bank, among)
        binding.set_input(tensors["K_cache"], k)
        binding.set_input(tensors["V_cache"], v)
        binding.set_input(tensors["indices"], buffers["indices"])
        binding.set_input(tensors["mask"], buffers["masks"][1 if self.windowed[layer] else 0])
        binding.set_input(tensors["input"], buffers["hidden"][layer % 2])
        binding.set_output(tensors["output"], buffers["hidden"][1 - layer % 2])
        binding.set_output(tensors["K_cache_out"], buffers["rows"][0])
        binding.set_output(tensors["V_cache_out"], buffers["rows"][1])
        return binding

    def _bind_heads(self, int hidden_size, bint embeds):
        """The head in all its groups; fp32 or bf16 logits, possibly of a trimmed vocabulary, or normed hidden states in
        their place."""
        cdef LoadedModel head = self.head
        cdef head_io *bound
        source, logits = find_tensor(head.inputs, "input", head.path), head_output(head, embeds)
        taken, given = head.inputs[source], head.outputs[logits]
        if any(size % self.hidden_bytes for size in taken.sizes) or taken.shapes[0][-1] != hidden_size:
            raise PackageError(
                f"{head.path}: it takes {taken.shapes[0]}, the layers give rows of {hidden_size}: files of two models?")
        if given.dtype not in (AXCL_TYPE_BF16, AXCL_TYPE_FP32):
            raise PackageError(
                f"{head.path}: logits of runtime data type {given.dtype}; axpress reads bf16 (14) and fp32 (15)")
        self.logits_dtype = "uint16" if given.dtype == AXCL_TYPE_BF16 else "float32"
        self.vocab_size = given.shapes[0][-1]
        groups = sorted((size // self.hidden_bytes, group) for group, size in enumerate(taken.sizes))
        self.logits_bytes = given.sizes[groups[0][1]] // groups[0][0]
        self.head_handle.model, self.head_handle.context = head.model, head.context
        self.heads = <head_io *>PyMem_Calloc(len(groups), sizeof(head_io))
        if self.heads == NULL:
            raise MemoryError
        self.num_heads = len(groups)
        for i, (rows, group) in enumerate(groups):
            hidden = self._shared("head_input", self.hidden_bytes * rows)
            out = self._shared("logits", self.logits_bytes * rows)
            bound = &self.heads[i]
            bound.index, bound.rows = group, rows
            bound.input, bound.output = <char *>handle(hidden), handle(out)
            bound.io = self._bind_head(group, source, logits, hidden, out)
            if rows == 1:
                last = self._shared(f"hidden{self.num_layers % 2}", self.hidden_bytes)
                self.head_direct = self._bind_head(group, source, logits, last, out)

    cdef axclrtEngineIO _bind_head(
            self, int group, int source, int logits, DeviceBuffer hidden, DeviceBuffer out) except NULL:
        binding = Binding(self.head, group)
        self.bindings.append(binding)
        for i, tensor in enumerate(self.head.inputs):
            binding.set_input(i, hidden if i == source else self._shared(f"head_in{i}", tensor.sizes[group]))
        for i, tensor in enumerate(self.head.outputs):  # some heads add the arg-max: nothing may stay unbound
            binding.set_output(i, out if i == logits else self._shared(f"head_out{i}", tensor.sizes[group]))
        return (<Binding>binding).io

    cdef axclError bind_rows(self, group_io *group, int bank, bint in_place, size_t first_row) noexcept nogil:
        """Points K/V outputs at their cache row, or back at the pass's own buffers. Local writes, no submission."""
        cdef axclError code = 0
        cdef size_t nbytes = self.row_bytes * group.width
        cdef int cell
        for cell in range(bank * self.num_attention, (bank + 1) * self.num_attention):
            code = self.card.api.axclrtEngineSetOutputBufferByIndex(
                group.io[cell], self.k_out, self.kv.k[cell] + first_row if in_place else group.k_rows, nbytes)
            if code == 0:
                code = self.card.api.axclrtEngineSetOutputBufferByIndex(
                    group.io[cell], self.v_out, self.kv.v[cell] + first_row if in_place else group.v_rows, nbytes)
            if code != 0:
                break
        return code

    def close(self) -> None:
        """Frees everything but the logits, which may have views: see Program."""
        for binding in self.bindings:
            binding.close()
        for pinned in (self.mask, self.window_mask, self.indices, self.hidden):
            if pinned is not None:
                pinned.close()
        for buffer in self.device.values():
            buffer.close()

    def __dealloc__(self):
        cdef int g
        for g in range(self.num_groups):
            PyMem_Free(self.groups[g].io)
            PyMem_Free(self.groups[g].numbers)
        PyMem_Free(self.groups)
        PyMem_Free(self.layer_handles)
        PyMem_Free(self.heads)


cdef void *handle(DeviceBuffer buffer) noexcept:
    return buffer.handle

"""Buffers of a pass on the card and in pinned memory, and the IO objects that bind them to every layer with attention.

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
from .runtime cimport Card, axclError, axclrtEngineIO

from .shape_groups import LAYER_INPUTS, LAYER_OUTPUTS, find_tensor


cdef class PassBuffers:
    """Of the groups that are `common` to all layers (a CommonShape), for passes over `kv`. `windowed`: of each layer,
    whether it has a sliding window.

    `mask`, `indices` and `hidden` are a pass's uploads, as large as the largest group needs. RuntimeCallError where the
    card refuses.
    """

    def __init__(self, card: Card, layers: list, common, kv: KVBuffers, tuple windowed=()):
        cdef int i
        self.windowed = windowed or (False,) * len(layers)
        self.card, self.layers, self.kv = card, layers, kv
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

    def shared(self, role: str, size_t nbytes) -> DeviceBuffer:
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
                "masks": [self.shared("mask", self.mask.nbytes)],
                "indices": self.shared("indices", 4 * bound.width * bound.axes),
                "hidden": [self.shared(f"hidden{i}", self.hidden_bytes * group.width) for i in range(2)],
                "rows": [self.shared(f"{n}_rows", self.row_bytes * group.width) for n in "kv"],
            }
            if self.window_mask is not None:
                buffers["masks"].append(self.shared("window_mask", self.mask.nbytes))
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
        """Frees everything."""
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


cdef void *handle(DeviceBuffer buffer) noexcept:
    return buffer.handle

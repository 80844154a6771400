"""Recurrent layers: states of sequences on the card, and passes from one to another.

    slot 0      zeros: what a text begins with; nobody writes there
    slot 1      for passes whose state nobody wants
    others      as the scheduler says: each holds what all recurrent layers know of one text so far

A pass reads one slot and writes another, so that nothing is copied to keep a state, and whatever happens to the pass,
what it began with is still there. Where a pass has tokens of several texts each has its own execute, from hidden states
that are copied out of the pass's and back; one text by itself, as in decode, works on the pass's own.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.string cimport memset

from .axmodel cimport Binding, LoadedModel
from .buffer cimport DeviceBuffer, PinnedBuffer
from .call_stream cimport CALL_LAYER, CALL_UPLOAD, CallStream
from .pass_buffers cimport PassBuffers, group_io, handle
from .runtime cimport AXCL_COPY_DEVICE_TO_DEVICE, AXCL_COPY_HOST_TO_DEVICE, Card, axclError
from .step cimport Step, state_part

from .shape_groups import LAYER_INPUTS, LAYER_OUTPUTS, find_tensor

cdef enum:
    NO_STATE, UNWANTED_STATE  # and so on from FIRST_STATE_SLOT of backend.py
    ONE = 0x3f80  # 1.0 in bf16


cdef class StateLayers:
    """The recurrent ones of `layers`, as `common` (a CommonShape) tells, with `num_slots` states, in passes of at most
    `max_parts` parts on `buffers`. RuntimeCallError where the card refuses."""

    def __init__(self, card: Card, list layers, common, PassBuffers buffers, int num_slots, int max_parts):
        cdef int i
        self.card, self.num_slots, self.max_parts = card, num_slots, max_parts
        self.where = tuple(i for i, state in enumerate(common.states) if state is not None)
        self.num_layers, self.hidden_bytes = len(self.where), 2 * common.shape.hidden
        self.num_axes = common.shape.axes
        self.bindings, self.buffers = [], []
        groups = common.shape.decode[:1] + common.shape.chunks
        widths = sorted({group.width for group in groups})
        self._allocate(len(widths))
        for i, layer in enumerate(self.where):
            state = common.states[layer]
            self.k_bytes[i], self.v_bytes[i] = state.k_bytes, state.v_bytes
            self.handles[i].model = (<LoadedModel>layers[layer]).model
            self.handles[i].context = (<LoadedModel>layers[layer]).context
        self._make_states()
        widest = widths[-1]
        self.masks = PinnedBuffer(card, 2 * max_parts * widest)
        self.indices = PinnedBuffer(card, 4 * max_parts * widest * self.num_axes)
        for i, width in enumerate(widths):
            # with history if there is such a group: one without may take it that there is no state either
            number = max(n for n, group in enumerate(common.shape.decode + common.shape.chunks) if group.width == width)
            self._bind_width(i, width, number, layers, common, buffers)

    def _allocate(self, int num_widths):
        cdef int cells = self.num_slots * self.num_layers
        self.num_widths = num_widths
        self.k = <char **>PyMem_Calloc(cells, sizeof(char *))
        self.v = <char **>PyMem_Calloc(cells, sizeof(char *))
        self.k_bytes = <size_t *>PyMem_Calloc(self.num_layers, sizeof(size_t))
        self.v_bytes = <size_t *>PyMem_Calloc(self.num_layers, sizeof(size_t))
        self.handles = <model_handle *>PyMem_Calloc(self.num_layers, sizeof(model_handle))
        self.widths = <width_io *>PyMem_Calloc(num_widths, sizeof(width_io))
        self.mask_of = <void **>PyMem_Calloc(num_widths * self.max_parts, sizeof(void *))
        self.indices_of = <void **>PyMem_Calloc(num_widths * self.max_parts, sizeof(void *))
        self.parts = <state_part *>PyMem_Calloc(self.max_parts, sizeof(state_part))
        if not (self.k and self.v and self.k_bytes and self.v_bytes and self.handles and self.widths and self.mask_of
                and self.indices_of and self.parts):
            raise MemoryError

    def _make_states(self):
        cdef int cell
        self.pairs = []
        for cell in range(self.num_slots * self.num_layers):
            layer = cell % self.num_layers
            k = DeviceBuffer(self.card, self.k_bytes[layer], zero=True)
            v = DeviceBuffer(self.card, self.v_bytes[layer], zero=True)
            self.pairs.append((k, v))
            self.k[cell], self.v[cell] = <char *>handle(k), <char *>handle(v)

    def _buffer(self, size_t nbytes) -> DeviceBuffer:
        buffer = DeviceBuffer(self.card, nbytes, zero=True)
        self.buffers.append(buffer)
        return buffer

    def _bind_width(self, int at, int width, int group, list layers, common, PassBuffers buffers):
        """Every recurrent layer's group for passes of this many tokens, for each part and for a whole pass."""
        cdef width_io *bound = &self.widths[at]
        cdef int i, part
        bound.width = width
        bound.numbers = <uint32_t *>PyMem_Calloc(self.num_layers, sizeof(uint32_t))
        bound.io = <axclrtEngineIO *>PyMem_Calloc((1 + self.max_parts) * self.num_layers, sizeof(axclrtEngineIO))
        if bound.numbers == NULL or bound.io == NULL:
            raise MemoryError
        own = [self._buffer(self.hidden_bytes * width) for _ in range(2)]
        bound.input, bound.output = <char *>handle(own[0]), <char *>handle(own[1])
        hidden = [buffers.shared(f"hidden{i}", self.hidden_bytes * width) for i in range(2)]
        shared = buffers.shared("indices", self.index_bytes(width))
        masks = [self._buffer(2 * width) for _ in range(self.max_parts)]
        indices = [self._buffer(self.index_bytes(width)) for _ in range(self.max_parts)]
        for part in range(self.max_parts):
            self.mask_of[at * self.max_parts + part] = handle(masks[part])
            self.indices_of[at * self.max_parts + part] = handle(indices[part])
        for i, layer in enumerate(self.where):
            bound.numbers[i] = common.numbers[layer][group]
            bound.io[i] = self._bind_layer(
                layers[layer], bound.numbers[i], i, masks[0], shared, hidden[layer % 2], hidden[1 - layer % 2])
            for part in range(self.max_parts):
                bound.io[(1 + part) * self.num_layers + i] = self._bind_layer(
                    layers[layer], bound.numbers[i], i, masks[part], indices[part], own[0], own[1])

    cdef axclrtEngineIO _bind_layer(self, LoadedModel model, int group, int layer, DeviceBuffer mask,
                                    DeviceBuffer indices, DeviceBuffer source, DeviceBuffer target) except NULL:
        cdef Binding binding = Binding(model, group)
        tensors = {name: find_tensor(model.inputs, name, model.path) for name in LAYER_INPUTS}
        tensors |= {name: find_tensor(model.outputs, name, model.path) for name in LAYER_OUTPUTS}
        self.bindings.append(binding)
        self.k_in, self.v_in = tensors["K_cache"], tensors["V_cache"]
        self.k_out, self.v_out = tensors["K_cache_out"], tensors["V_cache_out"]
        empty, unwanted = self.pairs[layer], self.pairs[UNWANTED_STATE * self.num_layers + layer]
        for name, buffer in zip(LAYER_INPUTS, (*empty, indices, source, mask), strict=True):
            binding.set_input(tensors[name], buffer)
        for name, buffer in zip(LAYER_OUTPUTS, (*unwanted, target), strict=True):
            binding.set_output(tensors[name], buffer)
        return binding.io

    cdef size_t index_bytes(self, int width) noexcept nogil:
        return 4 * width * (self.num_axes if width > 1 else 1)

    # ---- steps ----

    cdef int prepare(self, Step step, group_io *group, const uint32_t *positions) except -1:
        """The parts of a step; without any its queries begin a text and leave no state. `positions` [axis, width]: the
        indices of the pass. ValueError: they do not cover it, or name slots that there are not."""
        cdef state_part *part
        cdef uint16_t *mask
        cdef uint32_t *indices
        cdef int i, axis, p, width, end = 0, axes = self.num_axes if group.width > 1 else 1
        if step.num_parts > self.max_parts:
            raise ValueError(f"a step of {step.num_parts} parts; the program takes {self.max_parts}")
        self.num_parts = max(step.num_parts, 1)
        self.parts[0] = state_part(0, step.num_queries, NO_STATE, UNWANTED_STATE)
        for p in range(step.num_parts):
            self.parts[p] = step.parts[p]
            end = step.parts[p].first + step.parts[p].count
            if step.parts[p].source >= self.num_slots or step.parts[p].target >= self.num_slots:
                raise ValueError(f"part {p} goes from state {step.parts[p].source} to {step.parts[p].target}, of"
                                 f" {self.num_slots}")
        if step.num_parts and end != step.num_queries:
            raise ValueError(f"the parts of a step end with query {end}, it has {step.num_queries}")
        self.whole = self.num_parts == 1 and self.widths[self._width_of(self.parts)].width == group.width
        for p in range(self.num_parts):
            part = &self.parts[p]
            width = self.widths[self._width_of(part)].width
            if part.count > width:
                raise ValueError(f"part {p} has {part.count} queries, no group of the layers takes so many")
            mask = <uint16_t *>self.masks.data + p * self.widths[self.num_widths - 1].width
            indices = <uint32_t *>self.indices.data + p * self.widths[self.num_widths - 1].width * self.num_axes
            memset(mask, 0, 2 * width)
            memset(indices, 0, self.index_bytes(width))
            for i in range(part.count):
                mask[i] = ONE
                for axis in range(axes if width > 1 else 1):
                    indices[axis * width + i] = positions[axis * group.width + part.first + i]
        return 0

    cdef int _width_of(self, const state_part *part) noexcept nogil:
        """Which of the widths a part takes: the smallest that holds it."""
        cdef int at = 0
        while at + 1 < self.num_widths and self.widths[at].width < part.count:
            at += 1
        return at

    cdef axclError upload(self, CallStream stream) noexcept nogil:
        """Masks and indices of the parts."""
        cdef axclError code = 0
        cdef int p, at, widest = self.widths[self.num_widths - 1].width
        stream.kind = CALL_UPLOAD
        for p in range(self.num_parts):
            at = self._width_of(&self.parts[p])
            if code == 0:
                code = stream.copy(self.mask_of[at * self.max_parts + p], self.masks.data + 2 * p * widest,
                                   2 * self.widths[at].width, AXCL_COPY_HOST_TO_DEVICE)
            if code == 0 and not self.whole:
                code = stream.copy(self.indices_of[at * self.max_parts + p],
                                   self.indices.data + 4 * p * widest * self.num_axes,
                                   self.index_bytes(self.widths[at].width), AXCL_COPY_HOST_TO_DEVICE)
        return code

    cdef axclError bind(self) noexcept nogil:
        """Points the layers of each part at its states. Local writes, no submission."""
        cdef axclError code = 0
        cdef axclrtEngineIO io
        cdef int p, i, source, target
        for p in range(self.num_parts):
            for i in range(self.num_layers):
                io = self.widths[self._width_of(&self.parts[p])].io[(0 if self.whole else 1 + p) * self.num_layers + i]
                source = self.parts[p].source * self.num_layers + i
                target = self.parts[p].target * self.num_layers + i
                code = self.card.api.axclrtEngineSetInputBufferByIndex(io, self.k_in, self.k[source], self.k_bytes[i])
                if code == 0:
                    code = self.card.api.axclrtEngineSetInputBufferByIndex(
                        io, self.v_in, self.v[source], self.v_bytes[i])
                if code == 0:
                    code = self.card.api.axclrtEngineSetOutputBufferByIndex(
                        io, self.k_out, self.k[target], self.k_bytes[i])
                if code == 0:
                    code = self.card.api.axclrtEngineSetOutputBufferByIndex(
                        io, self.v_out, self.v[target], self.v_bytes[i])
                if code != 0:
                    return code
        return 0

    cdef axclError submit(self, CallStream stream, int layer, char *source, char *target) noexcept nogil:
        """The `layer`-th of the recurrent layers, of all parts, from the pass's hidden states in `source` to `target`.
        """
        cdef axclError code = 0
        cdef width_io *bound
        cdef size_t offset, nbytes
        cdef int p
        for p in range(self.num_parts):
            bound = &self.widths[self._width_of(&self.parts[p])]
            offset, nbytes = self.parts[p].first * self.hidden_bytes, self.parts[p].count * self.hidden_bytes
            stream.kind = CALL_LAYER
            if not self.whole:
                code = stream.copy(bound.input, source + offset, nbytes, AXCL_COPY_DEVICE_TO_DEVICE)
            if code == 0:
                code = stream.execute(&self.handles[layer], bound.numbers[layer],
                                      bound.io[(0 if self.whole else 1 + p) * self.num_layers + layer])
            if code == 0 and not self.whole:
                code = stream.copy(target + offset, bound.output, nbytes, AXCL_COPY_DEVICE_TO_DEVICE)
            if code != 0:
                break
        return code

    # ---- states ----

    def pair(self, slot: int, layer: int) -> tuple:
        """The (K, V) DeviceBuffers of a slot, of the `layer`-th recurrent layer, for probes and tests."""
        return self.pairs[slot * self.num_layers + layer]

    def clear(self) -> None:
        """Zeros in all slots, and in what parts work on: a NaN there survives every mask."""
        for pair in self.pairs:
            for buffer in pair:
                buffer.fill(0)
        self.clear_parts()

    def clear_parts(self) -> None:
        """Zeros in what parts work on."""
        for buffer in self.buffers:
            buffer.fill(0)

    def close(self) -> None:
        """Frees everything."""
        for binding in self.bindings:
            binding.close()
        self.masks.close()
        self.indices.close()
        for pair in self.pairs:
            for buffer in pair:
                buffer.close()
        for buffer in self.buffers:
            buffer.close()

    def __dealloc__(self):
        cdef int at
        if self.widths != NULL:
            for at in range(self.num_widths):
                PyMem_Free(self.widths[at].numbers)
                PyMem_Free(self.widths[at].io)
        PyMem_Free(self.k)
        PyMem_Free(self.v)
        PyMem_Free(self.k_bytes)
        PyMem_Free(self.v_bytes)
        PyMem_Free(self.handles)
        PyMem_Free(self.widths)
        PyMem_Free(self.mask_of)
        PyMem_Free(self.indices_of)
        PyMem_Free(self.parts)

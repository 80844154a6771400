"""A step as runtime calls: three uploads, the layers, the heads, one wait; no Python between the first call and the last.

    uploads   mask, indices, embeddings       from pinned memory, once a step, shared by all layers
    layers    L executes                      hidden state alternates between two buffers
    rows      K and V of the new tokens       written straight into their cache rows where the card allows it (probed at
                                              load), else copied there on the card, run by run, in the same stream
    heads     one execute and one download for each query that wants logits
    wait      with a deadline

Buffers (R rows of cache, D bytes-per-row / 2, H hidden, C width, P history):
    bank K, V      [R, D]  bf16, one pair a layer, zeroed; a group with P < R rows is bound to the bank's start
    mask           [C, P + C] bf16, one per shape
    indices        [C] uint32, hidden x 2 [C, H] bf16, k_rows and v_rows [C, D] bf16, one set per width
"""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from .axmodel cimport Binding, LoadedModel
from .buffer cimport DeviceBuffer, PinnedBuffer
from .runtime cimport (
    AXCL_COPY_DEVICE_TO_DEVICE, AXCL_COPY_DEVICE_TO_HOST, AXCL_COPY_HOST_TO_DEVICE, AXCL_TYPE_BF16, AXCL_TYPE_FP32, Card,
    axclError, axclrtEngineIO, axclrtMemcpyKind)
from .step cimport Step, ax_mask_fill, ax_query

from time import perf_counter

from ..errors import PackageError
from .shape_groups import find_tensor, layer_shape

cdef enum:
    SETTLE_MS = 5000  # how long a step that failed half way may take to end

cdef enum:
    CALL_UPLOAD, CALL_BIND, CALL_LAYER, CALL_ROWS, CALL_HEAD, CALL_DOWNLOAD, CALL_WAIT

_CALLS = ("upload of mask, indices and embeddings", "axclrtEngineSetOutputBufferByIndex", "execution of a layer",
          "copy of K/V rows into the cache", "execution of the head", "download of logits", "axclrtSynchronizeStreamWithTimeout")


@cython.no_gc_clear
cdef class Program:
    """Runs steps of one model on one card.

    `groups` lists the shape groups that `Step.group` counts: decode groups by growing cache, then chunks by growing
    history. `logits(slot)` is a zero-copy view of pinned memory, overwritten by the next step.
    """

    def __init__(self, card: Card, layers: list, head: LoadedModel, embedding, *, num_banks: int = 1, logits_slots: int = 1):
        """`layers` and `head` are loaded; `embedding` is uint16 [V, H] (bf16 bits), kept, not copied.

        Raises PackageError where the models do not fit each other, RuntimeCallError where the card refuses.
        """
        self.card = card
        self.layers, self.head = list(layers), head
        self.num_layers, self.num_banks, self.logits_slots = len(layers), num_banks, logits_slots
        self.shape = self._common_shape()
        self.groups = self.shape.decode + self.shape.chunks
        self.bank_rows = self.shape.rows
        self.hidden_size = self.shape.hidden
        self.row_bytes = 2 * self.shape.kv_dim
        self.hidden_bytes = 2 * self.shape.hidden
        self.embedding = embedding
        if embedding.shape[1] != self.hidden_size:
            raise PackageError(
                f"the embedding has rows of {embedding.shape[1]} values, the layers take {self.hidden_size}: files of two models?")
        self.embedding_rows = embedding
        self.use_async = card.has_async
        self.failed_call = ""
        self.device, self.bindings = {}, []
        self._allocate()
        self._bind_layers()
        self._bind_head()

    def _common_shape(self):
        shape = layer_shape(self.layers[0].inputs, self.layers[0].outputs, self.layers[0].path)
        for layer in self.layers[1:]:
            if layer_shape(layer.inputs, layer.outputs, layer.path) != shape:
                raise PackageError(f"{layer.path}: its shape groups differ from those of {self.layers[0].path}: files of two builds?")
        return shape

    def _shared(self, role: str, nbytes: int) -> DeviceBuffer:
        """The buffer of exactly this size for this role: groups of one shape share it, the card wants no other size."""
        key = (role, nbytes)
        if key not in self.device:
            self.device[key] = DeviceBuffer(self.card, nbytes, zero=True)
        return self.device[key]

    def _allocate(self):
        cdef DeviceBuffer k, v
        cdef int i
        self.banks = [
            [tuple(DeviceBuffer(self.card, self.shape.rows * self.row_bytes, zero=True) for _ in "KV") for _ in range(self.num_layers)]
            for _ in range(self.num_banks)
        ]
        width = max(g.width for g in self.groups)
        self.pinned_mask = PinnedBuffer(self.card, max(2 * g.width * (g.history + g.width) for g in self.groups))
        self.pinned_indices = PinnedBuffer(self.card, 4 * width)
        self.pinned_hidden = PinnedBuffer(self.card, self.hidden_bytes * width)
        self.mask_host = <uint16_t *>(<PinnedBuffer>self.pinned_mask).data
        self.indices_host = <uint32_t *>(<PinnedBuffer>self.pinned_indices).data
        self.hidden_host = <uint16_t *>(<PinnedBuffer>self.pinned_hidden).data
        cells = self.num_banks * self.num_layers
        self.handles = <layer_handle *>calloc(self.num_layers, sizeof(layer_handle))
        self.k_bank = <void **>calloc(cells, sizeof(void *))
        self.v_bank = <void **>calloc(cells, sizeof(void *))
        self.row_runs = <row_run *>calloc(width, sizeof(row_run))
        self.plans = <group_plan *>calloc(len(self.groups), sizeof(group_plan))
        if not (self.handles and self.k_bank and self.v_bank and self.row_runs and self.plans):
            raise MemoryError
        for i in range(cells):
            k, v = self.banks[i // self.num_layers][i % self.num_layers]
            self.k_bank[i], self.v_bank[i] = k.handle, v.handle
        for i in range(self.num_layers):
            self.handles[i].model = (<LoadedModel>self.layers[i]).model
            self.handles[i].context = (<LoadedModel>self.layers[i]).context

    def _bind_layers(self):
        """One binding for each group, bank and layer; only K/V outputs change later (into rows of the cache)."""
        cdef group_plan *plan
        cdef Binding binding
        cdef int g, i
        model = self.layers[0]
        where = model.path
        inputs = {n: find_tensor(model.inputs, n, where) for n in ("K_cache", "V_cache", "indices", "input", "mask")}
        outputs = {n: find_tensor(model.outputs, n, where) for n in ("K_cache_out", "V_cache_out", "output")}
        self.k_out, self.v_out = outputs["K_cache_out"], outputs["V_cache_out"]
        for g, group in enumerate(self.groups):
            mask_bytes = 2 * group.width * (group.history + group.width)
            parts = {
                "mask": self._shared("mask", mask_bytes), "indices": self._shared("indices", 4 * group.width),
                "hidden": [self._shared(f"hidden{i}", self.hidden_bytes * group.width) for i in range(2)],
                "rows": [self._shared(f"{n}_rows", self.row_bytes * group.width) for n in "kv"],
            }
            plan = &self.plans[g]
            plan.index, plan.width, plan.history, plan.mask_bytes = group.index, group.width, group.history, mask_bytes
            plan.mask, plan.indices = (<DeviceBuffer>parts["mask"]).handle, (<DeviceBuffer>parts["indices"]).handle
            for i in range(2):
                plan.hidden[i] = (<DeviceBuffer>parts["hidden"][i]).handle
            plan.k_rows, plan.v_rows = (<DeviceBuffer>parts["rows"][0]).handle, (<DeviceBuffer>parts["rows"][1]).handle
            plan.io = <axclrtEngineIO *>calloc(self.num_banks * self.num_layers, sizeof(axclrtEngineIO))
            if plan.io == NULL:
                raise MemoryError
            for i in range(self.num_banks * self.num_layers):
                binding = self._bind_layer(group, parts, i, inputs, outputs)
                plan.io[i] = binding.io

    def _bind_layer(self, group, parts, int cell, inputs, outputs) -> Binding:
        bank, layer = divmod(cell, self.num_layers)
        binding = Binding(self.layers[layer], group.index)
        self.bindings.append(binding)
        k, v = self.banks[bank][layer]
        binding.set_input(inputs["K_cache"], k)
        binding.set_input(inputs["V_cache"], v)
        binding.set_input(inputs["indices"], parts["indices"])
        binding.set_input(inputs["mask"], parts["mask"])
        binding.set_input(inputs["input"], parts["hidden"][layer % 2])
        binding.set_output(outputs["output"], parts["hidden"][1 - layer % 2])
        binding.set_output(outputs["K_cache_out"], parts["rows"][0])
        binding.set_output(outputs["V_cache_out"], parts["rows"][1])
        return binding

    def _bind_head(self):
        """The head in all its groups; fp32 or bf16 logits, possibly of a trimmed vocabulary."""
        cdef LoadedModel head = self.head
        cdef head_plan *plan
        x, y = find_tensor(head.inputs, "input", head.path), find_tensor(head.outputs, "output", head.path)
        sizes = sorted((head.inputs[x].sizes[g] // self.hidden_bytes, g) for g in range(head.num_groups))
        if any(head.inputs[x].sizes[g] % self.hidden_bytes for _, g in sizes) or head.inputs[x].shapes[0][-1] != self.hidden_size:
            raise PackageError(
                f"{head.path}: it takes {head.inputs[x].shapes[0]}, the layers give rows of {self.hidden_size}: files of two models?")
        dtype = head.outputs[y].dtype
        if dtype not in (AXCL_TYPE_BF16, AXCL_TYPE_FP32):
            raise PackageError(f"{head.path}: logits of runtime data type {dtype}; axpress reads bf16 (14) and fp32 (15)")
        self.logits_dtype = "uint16" if dtype == AXCL_TYPE_BF16 else "float32"
        self.vocab_size = head.outputs[y].shapes[0][-1]
        self.logits_bytes = head.outputs[y].sizes[sizes[0][1]] // sizes[0][0]
        self.head_handle.model, self.head_handle.context = head.model, head.context
        self.num_heads = len(sizes)
        self.heads = <head_plan *>calloc(self.num_heads, sizeof(head_plan))
        self.wanted = <int32_t *>calloc(self.logits_slots, sizeof(int32_t))
        if self.heads == NULL or self.wanted == NULL:
            raise MemoryError
        for i, (rows, group) in enumerate(sizes):
            source, out = self._shared("head_input", self.hidden_bytes * rows), self._shared("logits", self.logits_bytes * rows)
            plan = &self.heads[i]
            plan.index, plan.rows = group, rows
            plan.input, plan.output = (<DeviceBuffer>source).handle, (<DeviceBuffer>out).handle
            plan.io = self._head_binding(group, x, y, source, out)
            if rows == 1:
                self.head_direct = self._head_binding(group, x, y, self._shared(f"hidden{self.num_layers % 2}", self.hidden_bytes), out)
        self.pinned_logits = PinnedBuffer(self.card, self.logits_bytes * self.logits_slots)
        self.logits_host = (<PinnedBuffer>self.pinned_logits).data
        views = self.pinned_logits.view(self.logits_dtype, (self.logits_slots, self.vocab_size))
        self.logits_views = [views[i] for i in range(self.logits_slots)]

    cdef axclrtEngineIO _head_binding(self, int group, int x, int y, DeviceBuffer source, DeviceBuffer out) except NULL:
        binding = Binding(self.head, group)
        self.bindings.append(binding)
        for i in range(len(self.head.inputs)):
            binding.set_input(i, source if i == x else self._shared(f"head_in{i}", self.head.inputs[i].sizes[group]))
        for i in range(len(self.head.outputs)):  # some heads add the arg-max: bound, since nothing may stay unbound
            binding.set_output(i, out if i == y else self._shared(f"head_out{i}", self.head.outputs[i].sizes[group]))
        return (<Binding>binding).io

    def set_modes(self, *, use_async: bool, in_place_decode: bool, in_place_chunk: bool) -> None:
        """What this card can be trusted with (see probe.py); the conservative choice is False, False, False."""
        cdef axclError code = 0
        cdef int g, bank
        self._require_open()
        self.use_async, self.in_place_decode, self.in_place_chunk = use_async, in_place_decode, in_place_chunk
        for g in range(len(self.groups)):
            for bank in range(self.num_banks):
                with nogil:
                    code = self._bind_rows(&self.plans[g], bank, False, 0)
                self.card.check("axclrtEngineSetOutputBufferByIndex", code)

    def time_layers(self, group: int, num_layers: int = 4, repeats: int = 1) -> float:
        """Seconds that one layer of this group takes, from the first few layers. What it computes is thrown away."""
        cdef group_plan *plan
        cdef axclError code = 0
        cdef int i, count = min(num_layers, self.num_layers) * repeats
        self._require_open()
        if not 0 <= group < len(self.groups) or count < 1:
            raise ValueError(f"group {group} of {len(self.groups)}, {num_layers} layers, {repeats} times")
        plan = &self.plans[group]
        start = perf_counter()
        with nogil:
            for i in range(count):
                code = self._execute(&self.handles[i % self.num_layers], plan.index, plan.io[i % self.num_layers])
                if code != 0:
                    break
            if code == 0 and self.use_async:
                code = self.card.api.axclrtSynchronizeStreamWithTimeout(self.card.stream, -1)
        self.card.check("axclrtEngineExecute", code)
        return (perf_counter() - start) / count

    def time_head(self) -> float:
        """Seconds that one head takes, download of the logits included."""
        cdef axclError code
        self._require_open()
        start = perf_counter()
        with nogil:
            code = self._execute(&self.head_handle, self.heads[0].index, self.heads[0].io)
            if code == 0:
                code = self._copy(self.logits_host, self.heads[0].output, self.logits_bytes, AXCL_COPY_DEVICE_TO_HOST)
            if code == 0 and self.use_async:
                code = self.card.api.axclrtSynchronizeStreamWithTimeout(self.card.stream, -1)
        self.card.check("axclrtEngineExecute", code)
        return perf_counter() - start

    def logits(self, slot: int = 0):
        """Logits of the last step's query with this slot: uint16 (bf16 bits) or float32 [vocab_size], zero-copy."""
        return self.logits_views[slot]

    def kv_buffers(self, bank: int, layer: int) -> tuple:
        """The bank's (K, V) DeviceBuffers of one layer, for probes and tests."""
        return self.banks[bank][layer]

    cdef int _require_open(self) except -1:
        if self.closed:
            raise ValueError("the program is closed")
        return 0

    cdef int _prepare(self, Step step) except -1:
        """Checks the step against the model and fills pinned memory. ValueError: nothing was submitted."""
        cdef group_plan *plan
        cdef ax_query *q
        cdef int i
        self._require_open()
        if not 0 <= step.group < len(self.groups) or not 0 <= step.bank < self.num_banks:
            raise ValueError(f"group {step.group} of {len(self.groups)}, bank {step.bank} of {self.num_banks}")
        plan = &self.plans[step.group]
        if step.num_queries < 1 or step.num_queries > plan.width or step.num_logits > self.logits_slots:
            raise ValueError(
                f"{step.num_queries} queries, {step.num_logits} with logits: the group takes {plan.width}, slots are {self.logits_slots}")
        self.num_row_runs = 0
        for i in range(step.num_queries):
            q = &step.queries[i]
            if not 0 <= q.token < self.embedding_rows.shape[0] or q.row >= self.bank_rows:
                raise ValueError(f"query {i}: token {q.token} of {self.embedding_rows.shape[0]}, row {q.row} of {self.bank_rows}")
            memcpy(self.hidden_host + <size_t>i * self.hidden_size, &self.embedding_rows[q.token, 0], self.hidden_bytes)
            self.indices_host[i] = q.position
            if q.row >= 0:
                self._add_row(i, q.row)
            if q.logits >= 0:
                self.wanted[q.logits] = i
        for i in range(step.num_queries, plan.width):
            self.indices_host[i] = 0
        memset(self.hidden_host + <size_t>step.num_queries * self.hidden_size, 0, (plan.width - step.num_queries) * self.hidden_bytes)
        if ax_mask_fill(self.mask_host, plan.width, plan.history, step.queries, step.num_queries,
                        step.runs, step.views, step.num_views) != 0:
            raise ValueError(f"a view of this step shows rows past the group's history of {plan.history}")
        return 0

    cdef void _add_row(self, size_t query, size_t row) noexcept:
        """Notes that a query's K/V belong into a row; joins it to the run before where both go on."""
        cdef size_t source = query * self.row_bytes, target = row * self.row_bytes
        cdef row_run *last
        if self.num_row_runs > 0:
            last = &self.row_runs[self.num_row_runs - 1]
            if last.source + last.nbytes == source and last.target + last.nbytes == target:
                last.nbytes += self.row_bytes
                return
        self.row_runs[self.num_row_runs] = row_run(source, target, self.row_bytes)
        self.num_row_runs += 1

    def run(self, step: Step, timeout_ms: int = -1) -> None:
        """Runs one step and waits for it.

        ValueError: the step does not fit the model; the card was not touched. StepTimeout: not done after `timeout_ms`
        (-1: no limit). RuntimeCallError: the card refused or failed; what the step wrote is then undefined.
        """
        cdef axclError code
        cdef int32_t limit = timeout_ms
        self._prepare(step)
        self.last_queries = 0
        with nogil:
            code = self._submit(step, &self.plans[step.group])
            if code == 0:
                code = self._wait(limit)
        if code != 0:
            self._give_up(code)
        self.last_plan, self.last_queries = &self.plans[step.group], step.num_queries

    def more_logits(self, queries, timeout_ms: int = -1) -> None:
        """Logits of further queries (by index) of the step run last, into slots 0 and up, without running the layers again.

        ValueError: no such query, or more than there are slots. Other errors as for `run`.
        """
        cdef axclError code
        cdef int32_t limit = timeout_ms
        cdef int count = len(queries), i
        self._require_open()
        if count < 1 or count > self.logits_slots:
            raise ValueError(f"{count} queries; the program has {self.logits_slots} slots for logits")
        for i in range(count):
            if not 0 <= queries[i] < self.last_queries:
                raise ValueError(f"query {queries[i]}; the last step had {self.last_queries}")
            self.wanted[i] = queries[i]
        with nogil:
            code = self._submit_heads(self.last_plan, count)
            if code == 0:
                code = self._wait(limit)
        if code != 0:
            self._give_up(code)

    def move_rows(self, int bank, const int32_t[::1] old, const int32_t[::1] new, timeout_ms: int = -1) -> None:
        """Copies K and V of rows `old` to rows `new` of a bank in every layer, on the card, and waits. The rows may not overlap.

        ValueError: no such bank or row; nothing was moved. Other errors as for `run`.
        """
        cdef axclError code = 0
        cdef int32_t limit = timeout_ms
        cdef Py_ssize_t i = 0, first, count = old.shape[0]
        cdef int layer, cell
        cdef size_t source, target, nbytes
        cdef char *k
        cdef char *v
        if self.closed or not 0 <= bank < self.num_banks or new.shape[0] != count:
            raise ValueError(f"bank {bank} of {self.num_banks}; {count} rows to {new.shape[0]}")
        for i in range(count):
            if not 0 <= old[i] < self.bank_rows or not 0 <= new[i] < self.bank_rows:
                raise ValueError(f"row {old[i]} to row {new[i]}; the bank has {self.bank_rows}")
        i = 0
        while i < count and code == 0:
            first = i
            i += 1
            while i < count and old[i] == old[i - 1] + 1 and new[i] == new[i - 1] + 1:
                i += 1
            source, target, nbytes = old[first] * self.row_bytes, new[first] * self.row_bytes, (i - first) * self.row_bytes
            with nogil:
                self.failed = CALL_ROWS
                for layer in range(self.num_layers):
                    cell = bank * self.num_layers + layer
                    k, v = <char *>self.k_bank[cell], <char *>self.v_bank[cell]
                    code = self._copy(k + target, k + source, nbytes, AXCL_COPY_DEVICE_TO_DEVICE)
                    if code == 0:
                        code = self._copy(v + target, v + source, nbytes, AXCL_COPY_DEVICE_TO_DEVICE)
                    if code != 0:
                        break
        with nogil:
            if code == 0:
                code = self._wait(limit)
        if code != 0:
            self._give_up(code)

    cdef axclError _wait(self, int32_t limit) noexcept nogil:
        self.failed = CALL_WAIT
        return self.card.api.axclrtSynchronizeStreamWithTimeout(self.card.stream, limit) if self.use_async else 0

    cdef int _give_up(self, axclError code) except -1:
        """Raises what failed, once the part of the step that was accepted is done: its buffers are in use until then."""
        self.failed_call = _CALLS[self.failed]
        if self.failed != CALL_WAIT and self.use_async:
            with nogil:
                self.card.api.axclrtSynchronizeStreamWithTimeout(self.card.stream, SETTLE_MS)
        return self.card.check(self.failed_call, code)

    cdef axclError _copy(self, void *dst, const void *src, size_t n, int kind) noexcept nogil:
        if self.use_async:
            return self.card.api.axclrtMemcpyAsync(dst, src, n, <axclrtMemcpyKind>kind, self.card.stream)
        return self.card.api.axclrtMemcpy(dst, src, n, <axclrtMemcpyKind>kind)

    cdef axclError _execute(self, layer_handle *handle, uint32_t group, axclrtEngineIO io) noexcept nogil:
        if self.use_async:
            return self.card.api.axclrtEngineExecuteAsync(handle.model, handle.context, group, io, self.card.stream)
        return self.card.api.axclrtEngineExecute(handle.model, handle.context, group, io)

    cdef axclError _submit(self, Step step, group_plan *plan) noexcept nogil:
        cdef axclError code
        cdef bint whole = plan.width == 1 and self.in_place_decode and self.num_row_runs == 1
        if plan.width > 1 and self.in_place_chunk and step.tail_free and self.num_row_runs == 1:
            whole = self.row_runs[0].source == 0 and self.row_runs[0].target / self.row_bytes + plan.width <= <size_t>self.bank_rows
        self.failed = CALL_UPLOAD
        code = self._copy(plan.mask, self.mask_host, plan.mask_bytes, AXCL_COPY_HOST_TO_DEVICE)
        if code == 0:
            code = self._copy(plan.indices, self.indices_host, 4 * plan.width, AXCL_COPY_HOST_TO_DEVICE)
        if code == 0:
            code = self._copy(plan.hidden[0], self.hidden_host, self.hidden_bytes * plan.width, AXCL_COPY_HOST_TO_DEVICE)
        if code == 0:
            code = self._submit_layers(plan, step.bank, whole, self.row_runs[0].target if whole else 0)
        if code == 0:
            code = self._submit_heads(plan, step.num_logits)
        return code

    cdef axclError _bind_rows(self, group_plan *plan, int bank, bint in_place, size_t first_row) noexcept nogil:
        """Points K/V outputs at their cache row, or back at the pass's own buffers. Local writes, no submission."""
        cdef axclError code
        cdef size_t nbytes = self.row_bytes * plan.width
        cdef int cell, i
        self.failed = CALL_BIND
        for i in range(self.num_layers):
            cell = bank * self.num_layers + i
            code = self.card.api.axclrtEngineSetOutputBufferByIndex(
                plan.io[cell], self.k_out, <char *>self.k_bank[cell] + first_row if in_place else <char *>plan.k_rows, nbytes)
            if code == 0:
                code = self.card.api.axclrtEngineSetOutputBufferByIndex(
                    plan.io[cell], self.v_out, <char *>self.v_bank[cell] + first_row if in_place else <char *>plan.v_rows, nbytes)
            if code != 0:
                return code
        return 0

    cdef axclError _submit_layers(self, group_plan *plan, int bank, bint in_place, size_t first_row) noexcept nogil:
        cdef axclError code
        cdef row_run *run
        cdef char *k
        cdef char *v
        cdef int cell, i, r
        if self.in_place_decode if plan.width == 1 else self.in_place_chunk:
            code = self._bind_rows(plan, bank, in_place, first_row)
            if code != 0:
                return code
        for i in range(self.num_layers):
            cell = bank * self.num_layers + i
            self.failed = CALL_LAYER
            code = self._execute(&self.handles[i], plan.index, plan.io[cell])
            if code != 0:
                return code
            if in_place:
                continue
            self.failed = CALL_ROWS
            for r in range(self.num_row_runs):
                run = &self.row_runs[r]
                k, v = <char *>self.k_bank[cell] + run.target, <char *>self.v_bank[cell] + run.target
                code = self._copy(k, <char *>plan.k_rows + run.source, run.nbytes, AXCL_COPY_DEVICE_TO_DEVICE)
                if code == 0:
                    code = self._copy(v, <char *>plan.v_rows + run.source, run.nbytes, AXCL_COPY_DEVICE_TO_DEVICE)
                if code != 0:
                    return code
        return 0

    cdef axclError _submit_heads(self, group_plan *plan, int count) noexcept nogil:
        """The logits of queries `wanted[0..count)` into slots 0..count: in one call where the head takes several rows."""
        cdef axclError code
        cdef int slot = 0, take, i
        while slot < count:
            i = 0
            while i + 1 < self.num_heads and self.heads[i].rows < count - slot:
                i += 1
            take = min(self.heads[i].rows, count - slot)
            code = self._submit_head(plan, &self.heads[i], slot, take)
            if code != 0:
                return code
            slot += take
        return 0

    cdef axclError _submit_head(self, group_plan *plan, head_plan *head, int slot, int count) noexcept nogil:
        cdef axclError code = 0
        cdef char *last = <char *>plan.hidden[self.num_layers % 2]
        cdef bint direct = plan.width == 1 and head.rows == 1 and self.head_direct != NULL
        cdef int i
        self.failed = CALL_HEAD
        for i in range(0 if direct else count):
            if code == 0:
                code = self._copy(<char *>head.input + i * self.hidden_bytes, last + self.wanted[slot + i] * self.hidden_bytes,
                                  self.hidden_bytes, AXCL_COPY_DEVICE_TO_DEVICE)
        if code == 0:
            code = self._execute(&self.head_handle, head.index, self.head_direct if direct else head.io)
        if code != 0:
            return code
        self.failed = CALL_DOWNLOAD
        return self._copy(self.logits_host + slot * self.logits_bytes, head.output, count * self.logits_bytes, AXCL_COPY_DEVICE_TO_HOST)

    def check_closable(self) -> None:
        """BufferError while somebody else holds a view of the logits."""
        if self.closed:
            return
        self.logits_views = []
        if self.pinned_logits.num_views:
            views = self.pinned_logits.view(self.logits_dtype, (self.logits_slots, self.vocab_size))
            self.logits_views = [views[i] for i in range(self.logits_slots)]
            raise BufferError("somebody still holds a view of the logits; drop it, then close")

    def close(self) -> None:
        """Drops the views and frees buffers and bindings. BufferError while somebody holds a view of the logits."""
        if self.closed:
            return
        self.check_closable()
        self.logits_views = []
        self.pinned_logits.close()
        self.closed = True
        for binding in self.bindings:
            binding.close()
        for pinned in (self.pinned_mask, self.pinned_indices, self.pinned_hidden):
            pinned.close()
        for buffer in self.device.values():
            buffer.close()
        for bank in self.banks:
            for pair in bank:
                for buffer in pair:
                    buffer.close()

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.plans != NULL:
            for i in range(len(self.groups)):
                free(self.plans[i].io)
        free(self.plans)
        free(self.handles)
        free(self.k_bank)
        free(self.v_bank)
        free(self.row_runs)
        free(self.heads)
        free(self.wanted)

"""A step as runtime calls: three uploads, the layers, the heads, one wait; no Python between the first and the last.

    uploads   masks, indices, embeddings      from pinned memory, once a step, shared by all layers
    layers    L executes                      hidden state alternates between two buffers
    rows      K and V of the new tokens       decode's written straight into their cache row where the card allows it
                                              (probed at load), else copied there on the card, run by run, in the stream
    heads     one execute and one download for each query that wants logits
    pictures  where a step has tokens of pictures and the encoder gave more than rows (deepstack): after first layers
              the hidden state comes down, is added to, and goes up again
    border    instead of heads, where the layers are a block of a model that goes on on another card: the hidden state
              comes down, to be uploaded there in place of embeddings
    wait      with a deadline

What the calls work on is made and bound in pass_buffers.pyx and kv_buffers.pyx; the head in head_pass.pyx, recurrent
layers, which go from one state of a text to the next instead of reading rows, in state_layers.pyx.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from .axmodel cimport LoadedModel
from .call_stream cimport (
    CALL_BIND, CALL_BORDER, CALL_IMAGES, CALL_LAYER, CALL_ROWS, CALL_UPLOAD, CallStream)
from .head_pass cimport HeadPass
from .kv_buffers cimport KVBuffers
from .pass_buffers cimport PassBuffers, group_io
from .runtime cimport (
    AXCL_COPY_DEVICE_TO_DEVICE, AXCL_COPY_DEVICE_TO_HOST, AXCL_COPY_HOST_TO_DEVICE, Card, axclError)
from .state_layers cimport StateLayers
from .step cimport Step, ax_mask_fill, ax_mask_window, ax_query

from time import perf_counter

import numpy as np

from ..errors import PackageError
from .image_rows import check_rows
from .shape_groups import common_shape

cdef enum:
    TIMED_LAYERS = 4


cdef class Program:
    """Runs steps of one model on one card.

    `groups` lists the shape groups that `Step.group` counts: decode groups by growing cache, then chunks by growing
    history. `logits(slot)` is a zero-copy view of pinned memory, overwritten by the next step.
    """

    def __init__(
            self, card: Card, layers: list, head: LoadedModel | None, embedding, *, num_banks: int = 1,
            logits_slots: int = 1, token_ids=None, embeds: bool = False, windows: tuple = (), first_layer: int = 0,
            common=None, num_states: int = 0, encoder=None):
        """`layers` and `head` are loaded; `embedding` is an EmbeddingTable [V, H], kept, not copied. `token_ids` int32:
        which token each of a trimmed head's logits is; None: logit i is token i, and what a padded head gives beyond V
        is no token. `embeds`: queries get their normed hidden state [H] in place of logits. `windows`: of each layer,
        how many positions it sees, its own included (0: all; empty: no layer has a sliding window).

        Of a model whose layers lie on several cards these are one block, from `first_layer` on, the last with the head,
        the others with None; `common`: the CommonShape of all its layers, as far as it is about these. `num_states`:
        slots for states of recurrent layers, where there are any. `encoder`: the VisionEncoder of a model with eyes,
        which is closed with the program.

        Raises PackageError where the models do not fit each other, RuntimeCallError where the card refuses.
        """
        self.card, self.stream = card, CallStream(card)
        common = common or common_shape(layers)
        self.first_layer, self.first, self.last = first_layer, first_layer == 0, head is not None
        self.encoder = encoder
        self.shape = common.shape
        self.groups = self.shape.decode + self.shape.chunks
        self.num_layers, self.num_banks, self.logits_slots = len(layers), num_banks, logits_slots
        self.bank_rows = self.shape.rows
        self.windows, self.window = windows, max(windows, default=0)
        if any(size not in (0, self.window) for size in windows):
            raise PackageError(
                f"layers with sliding windows of several sizes ({sorted(set(windows))}) are not supported")
        self.positions = np.zeros((num_banks, self.bank_rows), np.int32)
        self.row_bytes, self.hidden_bytes = 2 * self.shape.kv_dim, 2 * self.shape.hidden
        if embedding.shape[1] != self.shape.hidden:
            raise PackageError(f"the embedding has rows of {embedding.shape[1]} values, the layers take"
                               f" {self.shape.hidden}: files of two models?")
        self.table, self.embedding, self.rounds = embedding, embedding.array, embedding.rounds
        self.kv = KVBuffers(card, num_banks, common.num_attention, self.bank_rows, self.row_bytes)
        windowed = tuple(size > 0 for size in windows)
        self.buffers = PassBuffers(card, layers, common, self.kv, windowed)
        self.recurrent = <char *>PyMem_Calloc(self.num_layers, 1)
        if common.num_attention < self.num_layers:
            self.num_states = num_states
            self.states = StateLayers(card, layers, common, self.buffers, num_states, 2 * logits_slots)
            for i in self.states.where:
                self.recurrent[i] = 1
        self.row_runs = <row_run *>PyMem_Calloc(max(group.width for group in self.groups), sizeof(row_run))
        if self.row_runs == NULL or self.recurrent == NULL:
            raise MemoryError
        self.token_ids, self.embeds = token_ids, embeds
        if self.last:
            self.head = HeadPass(card, head, self.buffers, logits_slots, len(embedding), token_ids, embeds)
            self.vocab_size = self.head.vocab_size

    @property
    def use_async(self) -> bool:
        """Whether calls are submitted to the stream and waited for once a step."""
        return self.stream.use_async

    @property
    def num_attention(self):
        """Layers that have K and V of each token; the others are recurrent."""
        return self.buffers.num_attention

    def drop_bank(self) -> None:
        """Gives the memory of the last bank, which nobody uses any more, back to the card. ValueError for the only one;
        RuntimeCallError."""
        self._require_open()
        if self.num_banks == 1:
            raise ValueError("the only bank")
        self.num_banks -= 1
        self.kv.drop_last()

    # ---- load time ----

    def set_modes(self, *, use_async: bool, in_place_decode: bool) -> None:
        """What this card can be trusted with (see probe.py); the conservative choice is False, False."""
        cdef axclError code = 0
        cdef int g, bank
        self._require_open()
        self.stream.use_async, self.in_place_decode = use_async, in_place_decode
        for g in range(len(self.shape.decode)):
            for bank in range(self.num_banks):
                with nogil:
                    code = self.buffers.bind_rows(&self.buffers.groups[g], bank, False, 0)
                self.card.check("axclrtEngineSetOutputBufferByIndex", code)

    def time_layers(self, group: int, num_tokens: int, timeout_ms: int = -1, recurrent: bool = False) -> float:
        """Seconds that one layer of this group takes with so many tokens in it, from the first few layers with
        attention, or that are `recurrent`. What it computes is thrown away. Errors as for `run`."""
        cdef group_io *timed
        cdef axclError code = 0
        cdef int32_t limit = timeout_ms
        cdef int i, count, done = 0, kind = recurrent, most = self.num_layers - self.buffers.num_attention
        cdef Step step = Step(num_tokens)
        count = min(TIMED_LAYERS, most if recurrent else self.buffers.num_attention)
        step.reset(group)
        step.add_view(0, 0)
        for _ in range(num_tokens):
            step.add(0, 0, -1, -1, 0, False)
        self._prepare(step, None)
        timed = &self.buffers.groups[group]
        with nogil:
            code = self._upload(timed)
            if code == 0:
                code = self.stream.wait(limit)
        start = perf_counter()
        with nogil:
            self.stream.kind = CALL_LAYER
            for i in range(self.num_layers):
                if code != 0 or done == count:
                    break
                if self.recurrent[i] != kind:
                    continue
                if kind:
                    code = self.states.submit(self.stream, done, <char *>timed.hidden[0], <char *>timed.hidden[1])
                else:
                    code = self.stream.execute(&self.buffers.layer_handles[i], timed.numbers[i], timed.io[done])
                done += 1
            if code == 0:
                code = self.stream.wait(limit)
        if code != 0:
            self.stream.give_up(code)
        return (perf_counter() - start) / count

    def time_head(self, timeout_ms: int = -1) -> float:
        """Seconds that one head takes, download of the logits included. Errors as for `run`."""
        cdef axclError code
        cdef int32_t limit = timeout_ms
        self._require_open()
        start = perf_counter()
        with nogil:
            self.head.wanted[0] = 0
            code = self._submit_heads(&self.buffers.groups[0], 1)
            if code == 0:
                code = self.stream.wait(limit)
        if code != 0:
            self.stream.give_up(code)
        return perf_counter() - start

    def kv_buffers(self, bank: int, layer: int) -> tuple:
        """The bank's (K, V) DeviceBuffers of one of the layers with attention, counted without others, for probes and
        tests."""
        return self.kv.pair(bank, layer)

    def state_buffers(self, slot: int, layer: int) -> tuple:
        """The (K, V) DeviceBuffers of a state, of one of the recurrent layers, counted without others, for tests."""
        return self.states.pair(slot, layer)

    # ---- steps ----

    def run(self, step: Step, timeout_ms: int = -1) -> None:
        """Runs one step and waits for it.

        ValueError: the step does not fit the model; the card was not touched. StepTimeout: not done after `timeout_ms`
        (-1: no limit). RuntimeCallError: the card refused or failed; what the step wrote is then undefined.
        """
        if not (self.first and self.last):
            raise ValueError("a block of layers needs a hidden state: see run_block")
        self._run(step, timeout_ms, None)

    def run_block(self, step: Step, timeout_ms: int, uint16_t[:, ::1] hidden) -> None:
        """The same of a block of a model's layers. `hidden` [queries of the step or more, H]: the hidden state of each
        query, which a block that is not the first takes from there, and one that is not the last puts there."""
        if hidden.shape[0] < step.num_queries or hidden.shape[1] != self.shape.hidden:
            raise ValueError(f"a hidden state of {hidden.shape[0]} x {hidden.shape[1]} for {step.num_queries} queries")
        self._run(step, timeout_ms, hidden)
        if not self.last:
            memcpy(&hidden[0, 0], self.buffers.hidden.data, step.num_queries * self.hidden_bytes)

    cdef int _run(self, Step step, int32_t timeout_ms, uint16_t[:, ::1] hidden) except -1:
        cdef axclError code
        self._prepare(step, hidden)
        self.limit, self.num_queries = timeout_ms, step.num_queries
        self.last_group, self.last_queries = &self.buffers.groups[step.group], 0
        with nogil:
            code = self._submit(step, self.last_group)
            if code == 0:
                code = self.stream.wait(timeout_ms)
        if code != 0:
            self.stream.give_up(code)
        self.last_queries = step.num_queries
        return 0

    def more_logits(self, queries, timeout_ms: int = -1) -> None:
        """Logits of further queries (by index) of the step run last, into slots 0 and up; the layers do not run again.

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
            self.head.wanted[i] = queries[i]
        with nogil:
            code = self._submit_heads(self.last_group, count)
            if code == 0:
                code = self.stream.wait(limit)
        if code != 0:
            self.stream.give_up(code)

    def logits(self, slot: int = 0):
        """What the head gave the last step's query with this slot, logits or a hidden state: uint16 (bf16 bits) or
        float32 [vocab_size or hidden], zero-copy but for trimmed heads."""
        return self.head.view(slot)

    def bad_logits(self, count: int) -> list[int]:
        """Which of the first `count` slots hold what cannot be believed: NaN, +inf, or the same for every token."""
        return self.head.bad(count)

    def clear_logits(self, slot: int = 0) -> None:
        """Zeros in a slot, so that what is there afterwards was written since."""
        self.head.views[slot][:] = 0

    def move_rows(self, bank: int, old, new, timeout_ms: int = -1) -> None:
        """Copies K and V of rows `old` to rows `new` (int32) of a bank in every layer, on the card, and waits. The rows
        may not overlap.

        ValueError: no such bank or row; nothing was moved. Other errors as for `run`.
        """
        self._require_open()
        self.kv.move(self.stream, bank, old, new, timeout_ms)
        if self.window:
            held = np.asarray(self.positions)[bank]
            held[new] = held[old]

    def clear_rows(self, bank: int, rows) -> None:
        """Zeros in K and V of rows (int32) of a bank in every layer: a NaN there survives every mask. For rows that a
        failed pass wrote; slow. RuntimeCallError where the card fails."""
        self._require_open()
        self.kv.clear_rows(bank, rows)
        if self.num_states:
            self.states.clear_parts()

    def clear_bank(self, bank: int) -> None:
        """Zeros in K and V of all of a bank's rows. RuntimeCallError where the card fails."""
        self._require_open()
        self.kv.clear(bank)

    def clear_states(self) -> None:
        """Zeros in all states of recurrent layers. RuntimeCallError where the card fails."""
        self._require_open()
        if self.num_states:
            self.states.clear()

    def abandon(self) -> None:
        """Somebody hangs in a call of a step and is not waited for: should he come back, he makes no further call."""
        self.stream.abandoned = True
        if self.encoder is not None:
            self.encoder.abandon()

    cdef int _require_open(self) except -1:
        if self.closed:
            raise ValueError("the program is closed")
        return 0

    cdef int _prepare(self, Step step, uint16_t[:, ::1] given) except -1:
        """Checks the step against the model and fills pinned memory. ValueError: nothing was submitted."""
        cdef group_io *group
        cdef ax_query *q
        cdef char *hidden
        cdef uint32_t *indices
        cdef int i
        self._require_open()
        if not 0 <= step.group < self.buffers.num_groups or not 0 <= step.bank < self.num_banks:
            raise ValueError(f"group {step.group} of {len(self.groups)}, bank {step.bank} of {self.num_banks}")
        group = &self.buffers.groups[step.group]
        if step.num_queries < 1 or step.num_queries > group.width or step.num_logits > self.logits_slots:
            raise ValueError(
                f"{step.num_queries} queries, {step.num_logits} with logits: the group takes {group.width}, slots are"
                f" {self.logits_slots}")
        self.images = step.images
        if self.images is not None:
            check_rows(step)
            if group.width == 1 and self.shape.axes > 1:
                raise ValueError("tokens of pictures are placed on three axes by chunks only, not by decode")
        self.num_row_runs = 0
        hidden, indices = self.buffers.hidden.data, <uint32_t *>self.buffers.indices.data
        for i in range(step.num_queries):
            q = &step.queries[i]
            if q.token >= self.embedding.shape[0] or q.token < 0 and self.images is None or q.row >= self.bank_rows:
                raise ValueError(
                    f"query {i}: token {q.token} of {self.embedding.shape[0]}, row {q.row} of {self.bank_rows}")
            if self.rounds and self.first and q.token >= 0:
                self.table.need((q.token,))
            if self.first and q.token >= 0:
                memcpy(hidden + i * self.hidden_bytes, &self.embedding[q.token, 0], self.hidden_bytes)
            indices[i] = q.position
            if group.axes == 3:
                indices[group.width + i] = step.axes[2 * i]
                indices[2 * group.width + i] = step.axes[2 * i + 1]
            if q.row >= 0:
                self._add_row(i, q.row)
            if q.logits >= 0 and self.last:
                self.head.wanted[q.logits] = i
        if self.images is not None and self.first:
            self.images.fill(<uint16_t *>hidden, self.shape.hidden, step.num_queries)
        if given is not None and not self.first:
            memcpy(hidden, &given[0, 0], step.num_queries * self.hidden_bytes)
        for i in range(group.axes):
            memset(indices + i * group.width + step.num_queries, 0, 4 * (group.width - step.num_queries))
        memset(hidden + step.num_queries * self.hidden_bytes, 0, (group.width - step.num_queries) * self.hidden_bytes)
        if ax_mask_fill(<uint16_t *>self.buffers.mask.data, group.width, group.history, step.queries, step.num_queries,
                        step.runs, step.views, step.num_views) != 0:
            raise ValueError(f"a view of this step shows rows past the group's history of {group.history}")
        if self.window:
            self._fill_window_mask(step, group)
        if self.num_states:
            self.states.prepare(step, group, indices)
        return 0

    cdef void _fill_window_mask(self, Step step, group_io *group) noexcept:
        """The second mask, and the positions of the rows that this step writes: later steps see them."""
        cdef int i
        ax_mask_window(<uint16_t *>self.buffers.window_mask.data, <uint16_t *>self.buffers.mask.data, group.width,
                       group.history, step.queries, step.num_queries, &self.positions[step.bank, 0], self.window)
        for i in range(step.num_queries):
            if step.queries[i].row >= 0:
                self.positions[step.bank, step.queries[i].row] = step.queries[i].position

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

    cdef axclError _upload(self, group_io *group) noexcept nogil:
        cdef axclError code
        self.stream.kind = CALL_UPLOAD
        code = self.stream.copy(group.mask, self.buffers.mask.data, group.mask_bytes, AXCL_COPY_HOST_TO_DEVICE)
        if code == 0 and self.window:
            code = self.stream.copy(
                group.window_mask, self.buffers.window_mask.data, group.mask_bytes, AXCL_COPY_HOST_TO_DEVICE)
        if code == 0:
            code = self.stream.copy(
                group.indices, self.buffers.indices.data, 4 * group.width * group.axes, AXCL_COPY_HOST_TO_DEVICE)
        if code == 0:
            code = self.stream.copy(group.hidden[0], self.buffers.hidden.data, self.hidden_bytes * group.width,
                                    AXCL_COPY_HOST_TO_DEVICE)
        if code == 0 and self.num_states:
            code = self.states.upload(self.stream)
        return code

    cdef axclError _submit(self, Step step, group_io *group) noexcept nogil:
        cdef axclError code
        cdef bint in_place = group.width == 1 and self.in_place_decode and self.num_row_runs == 1
        code = self._upload(group)
        if code == 0 and group.width == 1 and self.in_place_decode:
            self.stream.kind = CALL_BIND
            code = self.buffers.bind_rows(group, step.bank, in_place, self.row_runs[0].target if in_place else 0)
        if code == 0 and self.num_states:
            self.stream.kind = CALL_BIND
            code = self.states.bind()
        if code == 0:
            code = self._submit_layers(group, step.bank, in_place)
        if code == 0 and self.last:
            code = self._submit_heads(group, step.num_logits)
        elif code == 0:  # into the memory that its uploads came from, which the card has read by then
            self.stream.kind = CALL_BORDER
            code = self.stream.copy(self.buffers.hidden.data, group.hidden[self.num_layers % 2],
                                    step.num_queries * self.hidden_bytes, AXCL_COPY_DEVICE_TO_HOST)
        return code

    cdef axclError _submit_layers(self, group_io *group, int bank, bint in_place) noexcept nogil:
        cdef axclError code
        cdef int i, cell = bank * self.buffers.num_attention, state = 0
        for i in range(self.num_layers):
            if self.recurrent[i]:
                code = self.states.submit(
                    self.stream, state, <char *>group.hidden[i % 2], <char *>group.hidden[1 - i % 2])
                state += 1
            else:
                self.stream.kind = CALL_LAYER
                code = self.stream.execute(&self.buffers.layer_handles[i], group.numbers[i], group.io[cell])
                if code == 0 and not in_place:
                    code = self._store_rows(group, cell)
                cell += 1
            if code == 0 and self.images is not None and self.images.adds(self.first_layer + i):
                code = self._add_images(group, i)
            if code != 0:
                return code
        return 0

    cdef axclError _store_rows(self, group_io *group, int cell) noexcept nogil:
        """K and V of a layer's new tokens into their cache rows."""
        cdef axclError code
        cdef row_run *run
        cdef int r
        self.stream.kind = CALL_ROWS
        for r in range(self.num_row_runs):
            run = &self.row_runs[r]
            code = self.stream.copy(
                self.kv.k[cell] + run.target, group.k_rows + run.source, run.nbytes, AXCL_COPY_DEVICE_TO_DEVICE)
            if code == 0:
                code = self.stream.copy(
                    self.kv.v[cell] + run.target, group.v_rows + run.source, run.nbytes, AXCL_COPY_DEVICE_TO_DEVICE)
            if code != 0:
                return code
        return 0

    cdef axclError _add_images(self, group_io *group, int layer) noexcept nogil:
        """What the encoder adds to the output of a layer of this block: down, added, up again."""
        cdef axclError code
        cdef void *output = group.hidden[1 - layer % 2]
        cdef size_t nbytes = self.num_queries * self.hidden_bytes
        self.stream.kind = CALL_IMAGES
        code = self.stream.copy(self.buffers.hidden.data, output, nbytes, AXCL_COPY_DEVICE_TO_HOST)
        if code == 0:
            code = self.stream.wait(self.limit)
        if code == 0:
            self.images.add(self.first_layer + layer, <uint16_t *>self.buffers.hidden.data)
            self.stream.kind = CALL_IMAGES
            code = self.stream.copy(output, self.buffers.hidden.data, nbytes, AXCL_COPY_HOST_TO_DEVICE)
        return code

    cdef axclError _submit_heads(self, group_io *group, int count) noexcept nogil:
        return self.head.submit(self.stream, <char *>group.hidden[self.num_layers % 2], group.width == 1, count)

    # ---- end ----

    def check_closable(self) -> None:
        """BufferError while somebody else holds a view of the logits."""
        if not self.closed and self.last:
            self.head.check_closable()

    def close(self) -> None:
        """Drops the views and frees buffers and bindings. BufferError while somebody holds a view of the logits."""
        if self.closed:
            return
        if self.last:
            self.head.close()
        self.closed = True
        if self.encoder is not None:
            self.encoder.close()
        self.buffers.close()
        self.kv.close()
        if self.num_states:
            self.states.close()

    def __dealloc__(self):
        PyMem_Free(self.row_runs)
        PyMem_Free(self.recurrent)

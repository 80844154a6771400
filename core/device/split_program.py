"""A model whose layers lie on several cards in blocks, one after the other: steps of it, and how they overlap.

    block      0                        1                        last
    card       embeddings, layers       layers                   layers, head
    between    hidden state of the step's tokens, down to this machine and up to the next card: 2 H bytes a token

Each card's thread takes a step through its own block. While one step is on the second card another one, of another
bank, can be on the first: `begin` puts a step on its way, `finish` waits for it. The last card keeps what it computed
until `release`, since `more_logits` asks for it: the next step waits for that."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import AxpressError, RuntimeUnavailable
from .buffer import DeviceBuffer
from .card_group import CardGroup, CardThread
from .program import Program
from .shape_groups import LayerShape
from .step import Step

T = TypeVar("T")


class FarBuffer:
    """A buffer on one of several cards."""

    def __init__(self, thread: CardThread, buffer: DeviceBuffer) -> None:
        self._thread, self._buffer = thread, buffer

    def read(self, dtype: str = "uint16", count: int = -1, offset: int = 0) -> NDArray[Any]:
        """See DeviceBuffer."""
        return self._thread.call(lambda: self._buffer.read(dtype, count, offset))

    def write(self, data: NDArray[Any], offset: int = 0) -> None:
        """See DeviceBuffer."""
        self._thread.call(lambda: self._buffer.write(data, offset))


class UnderWay:
    """A step on its way. `seconds`: what its blocks took, all together; `hidden`: uint16 [width, H], what goes from one
    card to the next."""

    def __init__(self, step: Step, timeout_ms: int, hidden: NDArray[np.uint16], keeps: bool) -> None:
        self.step, self.timeout_ms, self.hidden, self.keeps = step, timeout_ms, hidden, keeps
        self.seconds = 0.0
        self.dropped = False
        self._error: BaseException | None = None
        self._done = threading.Event()

    def end(self, error: BaseException | None = None) -> None:
        """It is through, or failed."""
        if not self._done.is_set():
            self._error = error
            self._done.set()

    def wait(self) -> None:
        """Until then; raises what failed."""
        self._done.wait()
        if self._error is not None:
            raise self._error


class SplitProgram:
    """A `Backend` of blocks: `blocks` of one model, each loaded on the card of `cards` at its place, the first with the
    embedding, the last with the head."""

    def __init__(self, cards: CardGroup, blocks: list[Program]) -> None:
        self.card, self.blocks = cards, blocks
        self._threads = cards.threads
        first, last = blocks[0], blocks[-1]
        self.shape: LayerShape = first.shape
        self.groups, self.table = first.groups, first.table
        self.num_layers = self.num_attention = sum(block.num_layers for block in blocks)
        self.num_states = 0
        self.num_banks, self.bank_rows = first.num_banks, first.bank_rows
        self.vocab_size, self.embeds, self.token_ids = last.vocab_size, last.embeds, last.token_ids
        self.logits_slots, self.encoder = last.logits_slots, first.encoder
        self._width = max(group.width for group in self.groups)
        self._lock = threading.Lock()
        self._under_way: list[UnderWay] = []
        self._for_last: deque[UnderWay] = deque()  # wait for the last block
        self._last_kept = False
        self._spare: list[NDArray[np.uint16]] = []

    @property
    def num_blocks(self) -> int:
        """Cards, and so steps that can be under way."""
        return len(self.blocks)

    @property
    def use_async(self) -> bool:
        """Whether calls are submitted to the streams and waited for once a block."""
        return all(block.use_async for block in self.blocks)

    # ---- steps ----

    def begin(self, step: Step, timeout_ms: int = -1) -> UnderWay:
        """Puts a step on its way, of a bank of which no other one is. It must stay as it is until then end. Each block
        may take `timeout_ms`."""
        return self._begin(step, timeout_ms, keeps=True)

    def finish(self, under_way: UnderWay) -> None:
        """Waits for the oldest of those under way; its logits are those of the program until `release`. Errors as for
        `Backend.run`."""
        under_way.wait()

    def release(self) -> None:
        """The step that was finished is done with: the last card may go on."""
        with self._lock:
            finished = self._under_way.pop(0)
            self._spare.append(finished.hidden)
            self._last_kept = False
            self._feed_last()

    def forget(self) -> None:
        """No step under way is of interest any more: each ends with the block that it is in."""
        with self._lock:
            for under_way in self._under_way:
                under_way.dropped = True
                under_way.end(RuntimeUnavailable("the step was given up"))
            self._under_way.clear()
            self._for_last.clear()
            self._last_kept = False

    def run(self, step: Step, timeout_ms: int = -1) -> None:
        """Runs one step and waits for it: where others are under way, in the place of the one that was finished last.
        Errors as for `Backend.run`."""
        under_way = self._begin(step, timeout_ms, keeps=False)
        under_way.wait()
        with self._lock:
            self._spare.append(under_way.hidden)

    def _begin(self, step: Step, timeout_ms: int, keeps: bool) -> UnderWay:
        with self._lock:
            hidden = self._spare.pop() if self._spare else np.empty((self._width, self.shape.hidden), np.uint16)
            under_way = UnderWay(step, timeout_ms, hidden, keeps)
            if keeps:
                self._under_way.append(under_way)
        self._submit(under_way, 0)
        return under_way

    def _submit(self, under_way: UnderWay, number: int) -> None:
        self._threads[number].submit(lambda: self._run_block(under_way, number))

    def _run_block(self, under_way: UnderWay, number: int) -> None:
        """On the card's thread."""
        if under_way.dropped:
            return
        thread, block, started = self._threads[number], self.blocks[number], time.perf_counter()
        try:
            thread.bound(lambda: block.run_block(under_way.step, under_way.timeout_ms, under_way.hidden))
        except BaseException as error:
            under_way.end(error.with_traceback(None))
            return
        under_way.seconds += time.perf_counter() - started
        if number + 1 == len(self.blocks):
            under_way.end()
        elif number + 2 < len(self.blocks) or not under_way.keeps:
            self._submit(under_way, number + 1)
        else:
            with self._lock:
                if not under_way.dropped:
                    self._for_last.append(under_way)
                    self._feed_last()

    def _feed_last(self) -> None:
        """The next one may go into the last block, if nothing there is still asked for. The caller has the lock."""
        if self._for_last and not self._last_kept:
            self._last_kept = True
            self._submit(self._for_last.popleft(), len(self.blocks) - 1)

    def more_logits(self, queries: Sequence[int], timeout_ms: int = -1) -> None:
        """See `Backend.more_logits`: of the step that was finished last and is not released."""
        self._threads[-1].call(lambda: self.blocks[-1].more_logits(queries, timeout_ms))

    def logits(self, slot: int = 0) -> NDArray[Any]:
        """See `Backend.logits`."""
        return self.blocks[-1].logits(slot)

    def bad_logits(self, count: int) -> list[int]:
        """See `Backend.bad_logits`."""
        return self.blocks[-1].bad_logits(count)

    def clear_logits(self, slot: int = 0) -> None:
        """See Program."""
        self.blocks[-1].clear_logits(slot)

    # ---- rows ----

    def move_rows(self, bank: int, old: NDArray[np.int32], new: NDArray[np.int32], timeout_ms: int = -1) -> None:
        """See `Backend.move_rows`: on all cards at once, after what runs there."""
        self._on_all(lambda block: block.move_rows(bank, old, new, timeout_ms))

    def clear_rows(self, bank: int, rows: NDArray[np.int32]) -> None:
        """See `Backend.clear_rows`."""
        self._on_all(lambda block: block.clear_rows(bank, rows))

    def clear_states(self) -> None:
        """There are none."""

    def clear_bank(self, bank: int) -> None:
        """See `Backend.clear_bank`."""
        self._on_all(lambda block: block.clear_bank(bank))

    def drop_bank(self) -> None:
        """See `Backend.drop_bank`."""
        self._on_all(lambda block: block.drop_bank())
        self.num_banks = self.blocks[0].num_banks

    def _on_all(self, work: Callable[[Program], T]) -> list[T]:
        """What `work` gives for each block, on its card's thread; the first error, once all have ended."""
        tasks = [thread.start(partial(work, block)) for thread, block in zip(self._threads, self.blocks, strict=True)]
        for task in tasks:
            with suppress(AxpressError, ValueError):
                task.result()
        return [task.result() for task in tasks]

    # ---- load time ----

    def set_modes(self, *, use_async: bool, in_place_decode: bool) -> None:
        """See Program: the same for all cards."""
        self._on_all(lambda block: block.set_modes(use_async=use_async, in_place_decode=in_place_decode))

    def time_layers(self, group: int, num_tokens: int, timeout_ms: int = -1) -> float:
        """See Program: on average, each block timed by itself."""
        seconds = [
            thread.call(partial(block.time_layers, group, num_tokens, timeout_ms)) * block.num_layers
            for thread, block in zip(self._threads, self.blocks, strict=True)
        ]
        return sum(seconds) / self.num_layers

    def time_head(self, timeout_ms: int = -1) -> float:
        """See Program."""
        return self._threads[-1].call(partial(self.blocks[-1].time_head, timeout_ms))

    def kv_buffers(self, bank: int, layer: int) -> tuple[FarBuffer, FarBuffer]:
        """The bank's (K, V) of one layer, for probes and tests."""
        for thread, block in zip(self._threads, self.blocks, strict=True):
            if layer < block.num_layers:
                k, v = block.kv_buffers(bank, layer)
                return FarBuffer(thread, k), FarBuffer(thread, v)
            layer -= block.num_layers
        raise IndexError(layer)

    # ---- end ----

    def abandon(self) -> None:
        """See `Backend.abandon`."""
        for block in self.blocks:
            block.abandon()

    def check_closable(self) -> None:
        """See `Backend.check_closable`."""
        self.blocks[-1].check_closable()

    def close(self) -> None:
        """See `Backend.close`."""
        self.forget()
        for thread, block in reversed(list(zip(self._threads, self.blocks, strict=True))):
            if not block.closed:
                thread.call(block.close)

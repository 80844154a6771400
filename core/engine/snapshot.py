"""A picture of the engine at work, for people who look: who runs, who holds which rows, how fast, how warm the card is.

A picture is made on the engine's thread, between two passes, only when somebody asked for one, and at most every
MIN_SECONDS. It never holds text or tokens: a sequence is a number in it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..device.backend import CardHandle
from ..errors import AxpressError, EngineClosed
from ..kv_cache.cache_bank import CacheBank
from ..kv_cache.row_pool import Rows
from .scheduler import Scheduler
from .sequence import Sequence, SequenceState

MIN_SECONDS = 0.2  # between two pictures: whoever asks sooner gets the one that is there
CARD_SECONDS = 1.0  # between two questions to the card about its temperature
RATE_SECONDS = 3.0  # what "now" means in tokens/s
FREE, IDLE = 0, -1
"""Holders of a row in `EngineSnapshot.banks`: nobody; a cached prefix that nobody uses at present. n > 0: the sequence
of that number alone. -k (k > 1): shared by k sequences."""


@dataclass(frozen=True, slots=True)
class Running:
    """One sequence: `number` says nothing but which is which. `computed`: its tokens in the cache; `cached`: of its
    prompt, those that were found there. `bank` None: paused, its rows went to others, it goes on later."""

    number: int
    state: Literal["prompt", "answer", "paused"]
    bank: int | None
    prompt_tokens: int
    computed: int
    cached: int
    generated: int
    low_priority: bool


@dataclass(frozen=True, slots=True)
class CardState:
    """What the card says of itself: degrees Celsius and bytes. None where it does not say."""

    temperature_c: float | None = None
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CardShare:
    """One of several cards in a picture, `name` as it was asked for: `num_banks` of the picture's banks, in order, are
    this one's."""

    name: str
    device: str
    state: str
    num_banks: int
    card: CardState


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """The engine between two passes. `at` counts seconds of time.monotonic(). `tokens_per_s`: generated in the last
    RATE_SECONDS, None unless somebody has been looking for a moment. `cards`: where there are several; `card` is the
    first then. `widths`: the latest passes, oldest first, as
    (tokens, sequences) carried. `banks`: who holds each row of each bank, int32 [num_rows], as FREE says."""

    at: float
    running: list[Running]
    num_waiting: int
    tokens_per_s: float | None
    widths: list[tuple[int, int]]
    banks: list[Rows]
    card: CardState
    cards: tuple[CardShare, ...] = ()


class Live:
    """Takes pictures of a scheduler. `ask` from any thread; `take` and `close` on the engine's.

    `wake` makes the engine's thread look."""

    def __init__(self, scheduler: Scheduler, wake: Callable[[], None]) -> None:
        self.asked = False
        self.quiet = False  # the card is not to be asked
        self._scheduler, self._wake = scheduler, wake
        self._lock = threading.Lock()
        self._asking: list[Future[EngineSnapshot]] = []
        self._latest: EngineSnapshot | None = None
        self._closed: str | None = None
        self._history: deque[tuple[float, int]] = deque()
        self._card = CardState()
        self._card_at = -CARD_SECONDS

    def ask(self) -> Future[EngineSnapshot]:
        """A picture, soon: at the latest after the pass that runs. The latest one if that is hardly old. EngineClosed
        (in the future) once the engine ended."""
        future: Future[EngineSnapshot] = Future()
        with self._lock:
            latest = self._latest
            if self._closed is not None:
                future.set_exception(EngineClosed(self._closed))
                return future
            if latest is not None and time.monotonic() - latest.at < MIN_SECONDS:
                future.set_result(latest)
                return future
            self._asking.append(future)
            first, self.asked = not self.asked, True
        if first:
            self._wake()
        return future

    def take(self) -> EngineSnapshot:
        """Makes a picture and gives it to all who asked."""
        picture = self._picture()
        self._latest = picture
        self._answer(lambda future: future.set_result(picture))
        return picture

    def take_asked(self) -> None:
        """`take` for the engine's loop: what goes wrong in it is the asker's trouble, not that of those who are being
        served."""
        try:
            self.take()
        except Exception as error:
            failed = error  # `error` is gone when the block is left
            self._answer(lambda future: future.set_exception(failed))

    def close(self, reason: str) -> None:
        """No more pictures."""
        with self._lock:
            self._closed = reason
        self._answer(lambda future: future.set_exception(EngineClosed(reason)))

    def _answer(self, give: Callable[[Future[EngineSnapshot]], None]) -> None:
        with self._lock:
            asking, self._asking, self.asked = self._asking, [], False
        for future in asking:
            with suppress(InvalidStateError):  # cancelled by its asker
                give(future)

    def _picture(self) -> EngineSnapshot:
        scheduler, now = self._scheduler, time.monotonic()
        sequences = [s for b in scheduler.banks for s in b.sequences] + scheduler.preempted
        sequences.sort(key=lambda s: s.generation.id)
        generated = scheduler.counters.totals["generated_tokens"] + sum(s.num_generated for s in sequences)
        return EngineSnapshot(
            at=now,
            running=[_running(s) for s in sequences],
            num_waiting=scheduler.num_in(SequenceState.WAITING),
            tokens_per_s=self._rate(now, generated),
            widths=list(scheduler.counters.widths),
            banks=[_owners(b) for b in scheduler.banks],
            card=self._card_state(now),
        )

    def _rate(self, now: float, generated: int) -> float | None:
        history = self._history
        if history and now - history[-1][0] > RATE_SECONDS:
            history.clear()  # nobody looked: what lies between is not "now"
        history.append((now, generated))
        while len(history) > 2 and now - history[1][0] >= RATE_SECONDS:
            history.popleft()
        (then, before) = history[0]
        return round((generated - before) / (now - then), 2) if now > then else None

    def _card_state(self, now: float) -> CardState:
        if self.quiet:
            return CardState()
        if now - self._card_at >= CARD_SECONDS:
            self._card_at = now
            self._card = _ask_card(self._scheduler.model.card)
        return self._card


def _running(sequence: Sequence) -> Running:
    state: Literal["prompt", "answer", "paused"] = "answer" if sequence.num_generated else "prompt"
    return Running(
        number=sequence.generation.id,
        state=state if sequence.bank is not None else "paused",
        bank=sequence.bank,
        prompt_tokens=sequence.num_prompt,
        computed=sequence.num_cached,
        cached=min(sequence.cached_tokens, sequence.num_prompt),
        generated=sequence.num_generated,
        low_priority=sequence.low_priority,
    )


def _owners(bank: CacheBank[Sequence]) -> Rows:
    return row_owners(
        bank.pool.counts, [(s.generation.id, np.frombuffer(s.rows.tobytes(), np.int32)) for s in bank.sequences]
    )


def row_owners(references: Rows, held: list[tuple[int, Rows]]) -> Rows:
    """The holder of each row, as `EngineSnapshot.banks` says it, int32 [num_rows]. `references`: of anybody, int32
    [num_rows]; `held`: number and rows of each sequence, each row at most once."""
    owners = np.where(references > 0, np.int32(IDLE), np.int32(FREE))
    users = np.zeros(len(references), np.int32)
    for number, rows in held:
        users[rows] += 1
        owners[rows] = number
    return np.where(users > 1, -users, owners)


def _ask_card(card: CardHandle) -> CardState:
    """A card that does not answer is nothing to stop for here: the next pass will say so."""
    try:
        properties = card.properties()
    except AxpressError:
        return CardState()
    temperature = properties.get("temperature_c")
    return CardState(
        None if temperature is None else round(temperature, 1), properties.get("total_cmm"), properties.get("free_cmm")
    )

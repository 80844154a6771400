"""Which of several cards a request goes to: where all that run, and itself, wait least for it together.

What counts: how much of its prompt a card has cached, what is left to compute; the seconds of prompts that come first
there; how long a round of tokens takes with one more in it; and whether there is a place and rows at all. Seconds are
those of the card's own pass costs."""

from __future__ import annotations

import threading
from array import array
from typing import NamedTuple

from ..kv_cache.radix_cache import RadixCache
from ..kv_cache.row_pool import RowPool
from .scheduler import Scheduler
from .sequence import Sequence

HEADROOM = 64  # rows that an answer should find free beyond its prompt
FIRST_ANSWER = 100  # tokens that an answer is expected to have before there were any
ALIKE = 1.03  # what costs so many times the least is as good: the emptier cache then decides


class Request(NamedTuple):
    """What the router knows of a request, or of an answer that goes on: its tokens so far, and how many more it may
    have."""

    tokens: array
    cache_salt: bytes
    num_to_generate: int

    @classmethod
    def of(cls, sequence: Sequence) -> Request:
        """As it is now."""
        return cls(sequence.tokens, sequence.cache_salt, sequence.num_to_generate)


class CacheImage:
    """What the caches of a card hold, as far as can be told without asking the engine's thread: what was sent there and
    answered, in as many rows, forgotten in the same order."""

    def __init__(self, num_rows: int) -> None:
        self._pool = RowPool(num_rows)
        self._tree = RadixCache(self._pool)

    @property
    def num_free(self) -> int:
        """Rows that hold nothing yet."""
        return self._pool.num_free

    def num_cached(self, tokens: array, cache_salt: bytes) -> int:
        """How many of the first tokens are there."""
        return self._tree.match(tokens, cache_salt, touch=False).num_tokens

    def add(self, tokens: array, cache_salt: bytes) -> None:
        """They are computed there, or were."""
        cursor = self._tree.cursor(cache_salt, tokens=tokens)
        new = tokens[cursor.num_tokens :]
        if len(new) > self._pool.num_free:
            self._tree.evict(len(new) - self._pool.num_free)
        new = new[: self._pool.num_free]
        if new:
            rows = self._pool.allocate(len(new))
            cursor.extend(new, rows)
            self._pool.release(rows)
        cursor.close()


class Router:
    """Chooses among `schedulers`, one a card, by index. From any thread."""

    def __init__(self) -> None:
        self.schedulers: list[Scheduler] = []
        self._images: list[CacheImage] = []
        self._lock = threading.Lock()

    def join(self, scheduler: Scheduler) -> None:
        """One more card."""
        with self._lock:
            self.schedulers.append(scheduler)
            self._images.append(_image_for(scheduler))

    def forget(self, index: int) -> None:
        """What that card had cached is lost."""
        with self._lock:
            self._images[index] = _image_for(self.schedulers[index])

    def learn(self, index: int, tokens: array, cache_salt: bytes) -> None:
        """That card computes these tokens, or did."""
        with self._lock:
            self._images[index].add(tokens, cache_salt)

    def best(self, request: Request, among: list[int]) -> list[int]:
        """`among`, the best first."""
        if len(among) < 2:
            return among
        with self._lock:
            seconds = {index: self._seconds(index, request) for index in among}
            least = min(seconds.values()) * ALIKE
            alike = [index for index in among if seconds[index] <= least]
            first = max(alike, key=lambda index: (self._num_cached(index, request), self._images[index].num_free))
        return sorted(among, key=lambda index: (index != first, seconds[index]))

    def seconds(self, index: int, request: Request) -> float:
        """What the request costs on that card, in seconds of waiting of all there together."""
        with self._lock:
            return self._seconds(index, request)

    def _num_cached(self, index: int, request: Request) -> int:
        return min(self._images[index].num_cached(request.tokens, request.cache_salt), len(request.tokens) - 1)

    def _seconds(self, index: int, request: Request) -> float:
        scheduler, costs = self.schedulers[index], self.schedulers[index].costs
        banks = [list(bank.sequences) for bank in scheduler.banks]
        placed = [s for bank in banks for s in bank]
        queue = [s for s in (*scheduler.waiting, *scheduler.preempted) if s.tokens is not request.tokens]
        cached, length = self._num_cached(index, request), len(request.tokens)
        first = sum(costs.prefill_seconds(s.num_cached, len(s.tokens)) for s in placed if s.num_pending > 1)
        first += sum(costs.prefill_seconds(self._num_cached(index, Request.of(s)), len(s.tokens)) for s in queue)
        # everybody's next rounds, with this one and without: in the bank that has fewest
        highs = sorted(([s.high for s in bank] for bank in banks), key=lambda one: (len(one), max(one, default=0)))
        high = min(max(highs[0], default=0) + length - cached + HEADROOM, scheduler.banks[0].pool.num_rows)
        others = sum(costs.round_seconds(one) for one in highs[1:])
        before, after = (costs.round_seconds(one) + others for one in (highs[0], [*highs[0], high]))
        tokens = min(request.num_to_generate, self._typical_answer(index))
        rounds = max((len(placed) + 1) * after - len(placed) * before, 0.0)  # what was measured may say otherwise
        wait = first
        if len(placed) >= scheduler.max_running or queue or not _has_rows(scheduler, length - cached):
            wait += (len(queue) + 1) / max(len(placed), 1) * self._typical_answer(index) * after
        return wait + (len(placed) + 1) * costs.prefill_seconds(cached, length) + tokens * rounds

    def _typical_answer(self, index: int) -> float:
        """Tokens that an answer has, by those that ended there."""
        totals = self.schedulers[index].counters.totals
        return (totals["generated_tokens"] + FIRST_ANSWER) / (totals["finished"] + 1)


def _image_for(scheduler: Scheduler) -> CacheImage:
    return CacheImage(sum(bank.pool.num_rows for bank in scheduler.banks))


def _has_rows(scheduler: Scheduler, count: int) -> bool:
    """Whether a bank has so many rows, and some for the answer, beyond those that are in use."""
    for bank in scheduler.banks:
        there = list(bank.sequences)
        used = min(sum(len(s.tokens) for s in there), max((s.high for s in there), default=0)) + HEADROOM * len(there)
        if used + count + HEADROOM <= bank.pool.num_rows or not used:
            return True
    return False

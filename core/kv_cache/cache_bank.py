"""One cache and the sequences that live in it: who holds which rows, who shares them, who gives them back."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import numpy as np

from .radix_cache import Cursor, Priority, RadixCache
from .row_placement import Moves
from .row_pool import RowPool, Rows
from .state_cache import StateCache

EVICT_SHARE = 8  # this part of a bank's rows at a time
LIVE_SECONDS = 600.0  # how long after its last use a conversation's prefix is safe from low-priority requests


class CachedSequence(Protocol):
    """What a bank knows of a sequence, and writes into it: its rows, its cursor, whom it waits for."""

    tokens: array
    cache_salt: bytes
    low_priority: bool
    rows: array
    cursor: Cursor | None
    bank: int | None
    state_slot: int  # slot of what recurrent layers know of its cached tokens; 0: nothing yet, or there are none
    cuts: tuple[int, ...]  # numbers of its tokens behind which others may part from it, or go on: states are kept there
    prefix_owner: CachedSequence | None  # an older one that is about to compute the first `prefix_owner_tokens` tokens
    prefix_owner_tokens: int
    cached_tokens: int

    @property
    def num_cached(self) -> int:
        """Tokens whose K and V are in the cache."""

    def set_rows(self, rows: Rows) -> None:
        """All cached tokens lie in these rows."""

    def add_rows(self, rows: Rows) -> None:
        """The next tokens lie in these rows."""


S = TypeVar("S", bound=CachedSequence)
Mover = Callable[[int, Rows, Rows], None]
"""Copies K and V of a bank's rows to other rows, on the card: (bank, from, to)."""


class CacheBank(Generic[S]):
    """Cache `index` of the program, `num_rows` rows.

    Every cached token's row belongs to the radix cache, where each sequence pins its path with a cursor. Rows of the
    pass being computed belong to the pass until its tokens are committed. `worth_reusing(cached, length)` says how many
    of the cached tokens a prompt should reuse; `move` copies rows on the card (None: they cannot be moved). `states`:
    of models with recurrent layers, the same for all banks; a text then goes on only from where one is kept."""

    def __init__(
        self,
        index: int,
        num_rows: int,
        worth_reusing: Callable[[int, int], int],
        move: Mover | None = None,
        states: StateCache | None = None,
    ) -> None:
        self.index = index
        self.pool = RowPool(num_rows)
        self.states = states
        self.tree = RadixCache(self.pool)
        self.sequences: list[S] = []
        self.last_pass = 0
        self.evicted_rows = self.moved_rows = self.committed_rows = 0
        self.changes = 0  # sequences that came or went
        self._worth_reusing = worth_reusing
        self._move = move
        self._ticks: deque[tuple[float, int]] = deque()

    # ---- who lives here ----

    def num_shared(self, tokens: array, cache_salt: bytes) -> tuple[int, int]:
        """How many of these tokens are cached here, and how many another one who lives here has or is about to have."""
        cached = self.tree.match(tokens, cache_salt, touch=False).num_tokens
        if self.states is not None:
            cached = self.states.longest(cache_salt, tokens[:cached])
        common = (_common(s.tokens, tokens) for s in self.sequences if s.cache_salt == cache_salt)
        return cached, max(common, default=0)

    def enter(self, sequence: S) -> None:
        """The sequence lives here from now on and finds as much of itself cached as there is."""
        priority = Priority.LOW if sequence.low_priority else Priority.NORMAL
        sequence.bank = self.index
        shared = self.tree.match(sequence.tokens[:-1], sequence.cache_salt, touch=False).num_tokens
        reused = self._worth_reusing(shared, len(sequence.tokens))
        if self.states is not None:
            reused, sequence.state_slot = self.states.find(sequence.cache_salt, sequence.tokens[:reused])
            self._cut(sequence, shared)
        # an edge ends where the sequence parts from what was there
        self.tree.match(sequence.tokens[:reused], sequence.cache_salt)
        sequence.cursor = self.tree.cursor(sequence.cache_salt, tokens=sequence.tokens[:reused], priority=priority)
        sequence.set_rows(sequence.cursor.matched)
        self._follow(sequence)
        self.sequences.append(sequence)
        self.changes += 1

    @staticmethod
    def _cut(sequence: S, shared: int) -> None:
        """Another text had so many tokens in common with this one: others may, too."""
        if shared:
            sequence.cuts = tuple(sorted({*sequence.cuts, shared}))

    def leave(self, sequence: S) -> None:
        """The sequence is gone; what it computed stays cached until the rows are needed."""
        self.sequences.remove(sequence)
        assert sequence.cursor is not None
        if self.states is not None:
            self.states.keep(
                sequence.cache_salt, sequence.tokens[: sequence.num_cached], sequence.state_slot, lasting=True
            )
            self.states.release(sequence.state_slot)
            sequence.state_slot = 0
        sequence.cursor.close()
        sequence.cursor = sequence.bank = sequence.prefix_owner = None
        sequence.set_rows(np.empty(0, np.int32))
        for other in self.sequences:
            if other.prefix_owner is sequence:
                self.catch_up(other)
        self.changes += 1

    def _follow(self, sequence: S) -> None:
        """If an older sequence is about to compute a longer beginning of this one's prompt, wait for it."""
        for other in self.sequences:
            if other is sequence or other.prefix_owner is not None:
                continue  # nobody waits for one that waits
            common = _common(other.tokens, sequence.tokens) if other.cache_salt == sequence.cache_salt else 0
            common = min(common, len(sequence.tokens) - 1)
            if common > max(sequence.num_cached, other.num_cached, sequence.prefix_owner_tokens):
                sequence.prefix_owner, sequence.prefix_owner_tokens = other, common

    def catch_up(self, sequence: S) -> None:
        """The leader is where the two part, or gone: take over what it computed and go on alone."""
        sequence.prefix_owner, sequence.prefix_owner_tokens = None, 0
        self.take_over(sequence)
        self._follow(sequence)

    def take_over(self, sequence: S) -> None:
        """Looks again for the sequence's tokens in the tree; another one may have computed some meanwhile."""
        assert sequence.cursor is not None
        known, state = sequence.tokens[:-1], 0
        if self.states is not None:
            shared = self.tree.match(known, sequence.cache_salt, touch=False).num_tokens
            count, state = self.states.find(sequence.cache_salt, known[:shared])
            known = known[:count]
            self._cut(sequence, shared)
        cursor = self.tree.cursor(sequence.cache_salt, tokens=known, priority=sequence.cursor.priority)
        if cursor.num_tokens <= sequence.num_cached:
            cursor.close()
            if self.states is not None:
                self.states.release(state)
            return
        if self.states is not None:
            self.states.release(sequence.state_slot)
            sequence.state_slot = state
        sequence.cached_tokens += cursor.num_tokens - sequence.num_cached
        sequence.cursor.close()
        sequence.cursor = cursor
        sequence.set_rows(cursor.matched)

    # ---- rows ----

    def make_free(self, count: int, *, low_priority: bool) -> None:
        """Has `count` rows free, as far as what nobody uses may go; many at a time, for they are to lie side by
        side."""
        missing = count - self.pool.num_free
        if missing > 0:
            priority = Priority.LOW if low_priority else Priority.NORMAL
            count = max(missing, self.pool.num_rows // EVICT_SHARE)
            self.evicted_rows += self.tree.evict(count, priority=priority, live_since=self._live_since())

    @property
    def can_move(self) -> bool:
        """Whether rows can be copied on the card."""
        return self._move is not None

    def relocate(self, moves: Iterable[Moves]) -> None:
        """Copies rows on the card, and lets whoever has them know."""
        assert self._move is not None
        where = np.arange(self.pool.num_rows, dtype=np.int32)
        for old, new in moves:
            if old.size:
                self._move(self.index, old, new)
                self.pool.claim(new)
                self.pool.release(old)
                where[old] = new
                self.moved_rows += old.size
        self.tree.relocate(where)
        for sequence in self.sequences:
            sequence.set_rows(where[sequence.rows])

    def take(self, count: int, *, above: int = 0, below: int | None = None, low_priority: bool = False) -> Rows | None:
        """`count` rows for a pass: the lowest ones in one straight run, else the lowest ones; a single one from row
        `above` on, below `below`, if there is any. Cached prefixes that nobody uses give way. None where even that is
        not enough."""
        self.make_free(count, low_priority=low_priority)
        if not self.pool.can_allocate(count):
            return None
        if count == 1:
            return np.array((self.pool.allocate_row(above, below),), np.int32)
        run = self.pool.allocate_run(count)
        return run if run is not None else self.pool.allocate(count)

    def _live_since(self) -> int:
        """The tree's tick LIVE_SECONDS ago: what was used since then belongs to a conversation that may go on."""
        now = time.monotonic()
        if not self._ticks or now - self._ticks[-1][0] > LIVE_SECONDS / 10:
            self._ticks.append((now, self.tree.tick))
        while len(self._ticks) > 1 and now - self._ticks[1][0] > LIVE_SECONDS:
            self._ticks.popleft()
        return self._ticks[0][1] if now - self._ticks[0][0] > LIVE_SECONDS else 0

    def commit(self, sequence: S, tokens: array, rows: Rows) -> None:
        """`tokens` are cached in `rows`, which the pass held. Where another sequence was first, its rows are used
        instead."""
        assert sequence.cursor is not None
        final = sequence.cursor.extend(tokens, rows)
        self.pool.release(rows)
        self.committed_rows += len(rows)
        sequence.add_rows(final)

    def advance(self, sequence: S, passed: Iterable[tuple[int, int]], *, of_prompt: bool) -> None:
        """After `commit`, of a model with recurrent layers: `passed` has the slots of states behind so many cached
        tokens, which the pass held, the last behind all. They are kept behind the sequence's `cuts`, and where a pass
        over a prompt ended."""
        assert self.states is not None
        for count, slot in passed:
            cut = count in sequence.cuts
            if cut or of_prompt:
                self.states.keep(sequence.cache_salt, sequence.tokens[:count], slot, lasting=cut)
            self.states.release(sequence.state_slot)
            sequence.state_slot = slot

    def check_integrity(self, num_passing: int = 0) -> None:
        """Pool and tree agree, but for `num_passing` rows of a pass under way, and every sequence's rows are pinned by
        its cursor."""
        self.pool.check_integrity()
        self.tree.check_integrity()
        if self.pool.num_used != self.tree.num_rows + num_passing:
            raise AssertionError(f"bank {self.index}: {self.pool.num_used} rows held, {self.tree.num_rows} in the tree")
        for sequence in self.sequences:
            assert sequence.cursor is not None and sequence.cursor.num_tokens == sequence.num_cached
            match = self.tree.match(sequence.tokens[: sequence.num_cached], sequence.cache_salt, touch=False)
            if list(match.rows) != list(sequence.rows):
                raise AssertionError(f"bank {self.index}: a sequence's rows are not those of its tokens")


def _common(a: array, b: array) -> int:
    """How many tokens two sequences begin with in common."""
    n = min(len(a), len(b))
    different = np.flatnonzero(np.frombuffer(a, np.int32)[:n] != np.frombuffer(b, np.int32)[:n])
    return int(different[0]) if different.size else n

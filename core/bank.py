"""One cache and the sequences that live in it: who holds which rows, who shares them, who gives them back."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from axpress.core.planner import Planner
from axpress.core.prefix import Node, PrefixTree, Priority
from axpress.core.rows import RowPool, Rows

if TYPE_CHECKING:
    from axpress.core.sequence import Sequence


HEADROOM = 64  # rows a sequence should find free beyond its prompt, so that it does not push another out at once
EVICT_AT_LEAST = 64  # rows at a time, where the lowest free ones lie too high
MAX_STRETCHES = 48  # of rows moved at once while others wait: about 30 ms of a card's time
LIVE_SECONDS = 600.0  # how long after its last use a conversation's prefix is safe from background requests


Mover = Callable[[int, Rows, Rows], None]
"""Copies K and V of a bank's rows to other rows, on the card: (bank, from, to)."""


class Bank:
    """Cache `index` of the program, `num_rows` rows.

    The card reads a group's whole history whatever the mask shows, so low rows are for those who run: what nobody uses at present is
    moved to the upper half when its sequence ends, and back down when somebody goes on from it.

    Every cached token's row belongs to the prefix tree, where each sequence pins its path with a cursor. Rows of the pass being
    computed belong to the pass until its tokens are committed.
    """

    def __init__(self, index: int, num_rows: int, planner: Planner, move: Mover | None = None) -> None:
        self.index = index
        self.pool = RowPool(num_rows)
        self.tree = PrefixTree(self.pool)
        self.sequences: list[Sequence] = []
        self.last_pass = 0
        self.evicted_rows = self.moved_rows = 0
        self._move = move
        self._ticks: deque[tuple[float, int]] = deque()
        self._planner = planner

    # ---- who lives here ----

    def num_shared(self, tokens: array, salt: bytes) -> int:
        """How many of these tokens are cached here, or about to be computed here by another."""
        cached = self.tree.match(tokens, salt, touch=False).num_tokens
        return max([cached, *(_common(s.tokens, tokens) for s in self.sequences if s.salt == salt)])

    def num_live(self) -> int:
        """Rows that somebody uses at present."""
        return self.pool.num_used - self.tree.num_evictable()

    def num_promised(self) -> int:
        """Rows that those who live here have still to take: the rest of their prompts, and some of their answers."""
        return sum(
            len(s.tokens) - max(s.num_cached, s.leader_tokens) + min(HEADROOM, s.request.max_tokens - s.num_generated)
            for s in self.sequences
        )

    def has_room(self, tokens: array, salt: bytes, num_rows: int, *, background: bool) -> bool:
        """Whether a sequence with these tokens would find `num_rows` more rows here without taking any from another.

        A background one beside others counts on free rows only: it may not push out what `take` would refuse it later.
        """
        if self.pool.can_allocate(num_rows) or not self.sequences:
            return True
        if background:
            return False
        with self.tree.cursor(salt, tokens=tokens):  # what it shares must stay
            return self.pool.num_free + self.tree.num_evictable() >= num_rows

    def enter(self, sequence: Sequence) -> None:
        """The sequence lives here from now on and finds as much of itself cached as there is."""
        priority = Priority.BACKGROUND if sequence.background else Priority.NORMAL
        sequence.bank = self
        shared = self.tree.match(sequence.tokens[:-1], sequence.salt, touch=False).num_tokens
        reused = self._planner.worth_reusing(shared, len(sequence.tokens))
        self.tree.match(sequence.tokens[:reused], sequence.salt)  # an edge ends where the sequence parts from what was there
        self._bring_down(self.tree.idle_path(sequence.tokens[:reused], sequence.salt))
        sequence.cursor = self.tree.cursor(sequence.salt, tokens=sequence.tokens[:reused], priority=priority)
        sequence.set_rows(sequence.cursor.matched)
        self._follow(sequence)
        self.sequences.append(sequence)

    def leave(self, sequence: Sequence) -> None:
        """The sequence is gone; what it computed stays cached until the rows are needed."""
        self.sequences.remove(sequence)
        assert sequence.cursor is not None
        sequence.cursor.close()
        sequence.cursor = sequence.bank = sequence.leader = None
        sequence.set_rows(np.empty(0, np.int32))
        for other in self.sequences:
            if other.leader is sequence:
                self.catch_up(other)

    def _follow(self, sequence: Sequence) -> None:
        """If an older sequence is about to compute a longer beginning of this one's prompt, wait for it."""
        for other in self.sequences:
            if other is sequence or other.leader is not None:
                continue  # nobody waits for one that waits
            common = _common(other.tokens, sequence.tokens) if other.salt == sequence.salt else 0
            common = min(common, len(sequence.tokens) - 1)
            if common > max(sequence.num_cached, other.num_cached, sequence.leader_tokens):
                sequence.leader, sequence.leader_tokens = other, common

    def catch_up(self, sequence: Sequence) -> None:
        """The leader is where the two part, or gone: take over what it computed and go on alone."""
        sequence.leader, sequence.leader_tokens = None, 0
        self.take_over(sequence)
        self._follow(sequence)

    def take_over(self, sequence: Sequence) -> None:
        """Looks again for the sequence's tokens in the tree; another one may have computed some meanwhile."""
        assert sequence.cursor is not None
        cursor = self.tree.cursor(sequence.salt, tokens=sequence.tokens[:-1], priority=sequence.cursor.priority)
        if cursor.num_tokens <= sequence.num_cached:
            cursor.close()
            return
        sequence.cached_tokens += cursor.num_tokens - sequence.num_cached
        sequence.cursor.close()
        sequence.cursor = cursor
        sequence.set_rows(cursor.matched)

    # ---- rows ----

    def park(self, tokens: array, salt: bytes) -> None:
        """A sequence with these tokens has ended: what only it used makes room below. The oldest in the upper half go for it."""
        nodes = self.tree.idle_path(tokens, salt)
        rows = np.sort(np.array([r for n in nodes for r in n.rows], np.int32))
        rows = rows[rows < self.pool.num_rows // 2]
        if not rows.size or self._move is None:
            return
        free = self.pool.free_rows()
        missing = len(rows) - int((free >= self.pool.num_rows // 2).sum())
        if missing > 0:
            self.evicted_rows += self.tree.evict(missing)
            nodes = self.tree.idle_path(tokens, salt)
            rows = np.sort(np.array([r for n in nodes for r in n.rows], np.int32))
            rows = rows[rows < self.pool.num_rows // 2]
            free = self.pool.free_rows()
        free = free[free >= self.pool.num_rows // 2]
        count = min(len(rows), len(free))
        self._relocate(nodes, rows[:count], free[len(free) - count :])

    def _bring_down(self, nodes: list[Node]) -> None:
        """Somebody is about to go on from these nodes: into the lowest free rows with them, as far as those lie lower."""
        rows = np.sort(np.array([r for n in nodes for r in n.rows], np.int32))
        if not rows.size or self._move is None:
            return
        free = self.pool.free_rows()
        count = min(len(rows), len(free))
        count = int(np.argmin(np.append(rows[::-1][:count] > free[:count], False)))
        self._relocate(nodes, rows[len(rows) - count :], free[:count])

    def _relocate(self, nodes: list[Node], old: Rows, new: Rows) -> None:
        """Moves rows, if that is worth its copies: each stretch costs two on the card for every layer."""
        stretches = 1 + int(np.count_nonzero((np.diff(old) != 1) | (np.diff(new) != 1))) if old.size else 0
        if not stretches or (self.sequences and stretches > MAX_STRETCHES) or self._move is None:
            return
        self._move(self.index, old, new)
        self.pool.claim(new)
        self.pool.release(old)
        self.tree.relocate(nodes, dict(zip(old.tolist(), new.tolist(), strict=True)))
        self.moved_rows += len(old)

    def take(self, count: int, *, background: bool = False) -> Rows | None:
        """`count` rows for a pass, low ones first and in one straight run where that costs no deeper group; cached prefixes that
        nobody uses give way. None where even that is not enough."""
        missing = count - self.pool.num_free
        if missing > 0:
            priority = Priority.BACKGROUND if background else Priority.NORMAL
            self.evicted_rows += self.tree.evict(missing, priority=priority, live_since=self._live_since())
        if not self.pool.can_allocate(count):
            return None
        rows = self._allocate(count)
        reach = self._planner.reach
        while rows.max() >= reach and self.num_live() <= reach:
            # no chunk sees so far, and what is in use would fit below: idle prefixes give way until it does
            if not (freed := self.tree.evict(max(count, EVICT_AT_LEAST))):
                break
            self.evicted_rows += freed
            self.pool.release(rows)
            rows = self._allocate(count)
        return rows

    def _allocate(self, count: int) -> Rows:
        if count == 1:
            return self.pool.allocate(1)
        run = self.pool.allocate_run(count)
        if run is None:
            return self.pool.allocate(count)
        if self._deeper(int(run[-1]) + 1):
            scattered = self.pool.allocate(count)
            if self._planner.chunk_slot(int(scattered[-1]) + 1) != self._planner.chunk_slot(int(run[-1]) + 1):
                self.pool.release(run)
                return scattered
            self.pool.release(scattered)
        return run

    def _live_since(self) -> int:
        """The tree's tick LIVE_SECONDS ago: what was used since then belongs to a conversation that may go on."""
        now = time.monotonic()
        if not self._ticks or now - self._ticks[-1][0] > LIVE_SECONDS / 10:
            self._ticks.append((now, self.tree.tick))
        while len(self._ticks) > 1 and now - self._ticks[1][0] > LIVE_SECONDS:
            self._ticks.popleft()
        return self._ticks[0][1] if now - self._ticks[0][0] > LIVE_SECONDS else 0

    def _deeper(self, high: int) -> bool:
        """Whether a pass that sees `high` rows needs a deeper group than the rows in use today."""
        return self._planner.chunk_slot(high) != self._planner.chunk_slot(min(high, self.pool.num_used))

    def commit(self, sequence: Sequence, tokens: array, rows: Rows) -> None:
        """`tokens` are cached in `rows`, which the pass held. Where another sequence was first, its rows are used instead, unless they
        are parked."""
        assert sequence.cursor is not None
        final = sequence.cursor.extend(tokens, rows)
        if final[-1] > rows[-1] or final[0] > rows[0]:
            final = self.tree.prefer(sequence.cursor, rows)
        self.pool.release(rows)
        sequence.add_rows(final)

    def check_integrity(self) -> None:
        """Between passes: pool and tree agree, and every sequence's rows are pinned by its cursor."""
        self.pool.check_integrity()
        self.tree.check_integrity()
        if self.pool.num_used != self.tree.num_rows:
            raise AssertionError(f"bank {self.index}: {self.pool.num_used} rows held, {self.tree.num_rows} in the tree")
        for sequence in self.sequences:
            assert sequence.cursor is not None and sequence.cursor.num_tokens == sequence.num_cached
            match = self.tree.match(sequence.tokens[: sequence.num_cached], sequence.salt, touch=False)
            if list(match.rows) != list(sequence.rows):
                raise AssertionError(f"bank {self.index}: a sequence's rows are not those of its tokens")


def _common(a: array, b: array) -> int:
    """How many tokens two sequences begin with in common."""
    n = min(len(a), len(b))
    different = np.flatnonzero(np.frombuffer(a, np.int32)[:n] != np.frombuffer(b, np.int32)[:n])
    return int(different[0]) if different.size else n

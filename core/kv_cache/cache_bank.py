"""One cache and the sequences that live in it: who holds which rows, who shares them, who gives them back."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from .radix_cache import Priority, RadixCache
from .row_placement import Moves, clear_below, packed_highs
from .row_pool import RowPool, Rows

if TYPE_CHECKING:
    from ..engine.pass_planner import PassPlanner, StepPlan
    from ..engine.sequence import Sequence


HEADROOM = 64  # rows a sequence should find free beyond its prompt, so that it does not push another out at once
EVICT_SHARE = 8  # this part of a bank's rows at a time
PAUSE = 0.2  # of the deepest pass: how long those who run may wait for rows to be moved
LOOK_EVERY = 16  # passes of a bank between two closer looks at where its rows lie
LIVE_SECONDS = 600.0  # how long after its last use a conversation's prefix is safe from background requests


def headroom(sequence: Sequence) -> int:
    """Rows of its answer that a sequence should find free."""
    return min(HEADROOM, sequence.request.max_tokens - sequence.num_generated)


Mover = Callable[[int, Rows, Rows], None]
"""Copies K and V of a bank's rows to other rows, on the card: (bank, from, to)."""


class CacheBank:
    """Cache `index` of the program, `num_rows` rows.

    The card reads a group's whole history whatever the mask shows, so low rows are for those who run: what nobody uses
    at present is moved to the upper half when its sequence ends, and back down when somebody goes on from it.

    Every cached token's row belongs to the prefix tree, where each sequence pins its path with a cursor. Rows of the
    pass being computed belong to the pass until its tokens are committed."""

    def __init__(self, index: int, num_rows: int, planner: PassPlanner, move: Mover | None = None) -> None:
        self.index = index
        self.pool = RowPool(num_rows)
        self.tree = RadixCache(self.pool)
        self.sequences: list[Sequence] = []
        self.last_pass = 0
        self.evicted_rows = self.moved_rows = 0
        self._move = move
        self._num_live = 0  # rows that somebody uses at present; too many where several computed the same
        # seconds that passes took longer than with everybody packed, less what was spent on packing
        self._overspent = 0.0
        self._looked = -1  # passes since somebody came or went
        self._ticks: deque[tuple[float, int]] = deque()
        self._planner = planner

    # ---- who lives here ----

    def num_shared(self, tokens: array, cache_salt: bytes) -> tuple[int, int]:
        """How many of these tokens are cached here, and how many another one who lives here has or is about to have."""
        cached = self.tree.match(tokens, cache_salt, touch=False).num_tokens
        return cached, max((_common(s.tokens, tokens) for s in self.sequences if s.cache_salt == cache_salt), default=0)

    def num_promised(self) -> int:
        """Rows that those who live here have still to take: the rest of their prompts, and some of their answers."""
        return sum(len(s.tokens) - max(s.num_cached, s.prefix_owner_tokens) + headroom(s) for s in self.sequences)

    def sizes(self) -> list[int]:
        """Rows that each sequence adds to those before it, with the rest of its prompt and some of its answer; few
        first."""
        seqs = sorted(self.sequences, key=lambda s: s.num_cached)
        highs, _ = packed_highs([s.rows for s in seqs], self.pool.num_rows)
        promised = [len(s.tokens) - max(s.num_cached, s.prefix_owner_tokens) + headroom(s) for s in seqs]
        return sorted(high - low + more for high, low, more in zip(highs, [0, *highs], promised, strict=False))

    def has_room(self, tokens: array, cache_salt: bytes, num_rows: int, *, low_priority: bool) -> bool:
        """Whether a sequence with these tokens would find `num_rows` more rows here without taking any from another.

        A background one beside others counts on free rows only: it may not push out what `take` would refuse it later.
        """
        if self.pool.can_allocate(num_rows) or not self.sequences:
            return True
        if low_priority:
            return False
        shared = self.tree.match(tokens, cache_salt, touch=False).rows  # must stay
        highs, _ = packed_highs([*(s.rows for s in self.sequences), shared], self.pool.num_rows)
        return self.pool.num_rows - highs[-1] >= num_rows

    def enter(self, sequence: Sequence) -> None:
        """The sequence lives here from now on and finds as much of itself cached as there is."""
        priority = Priority.LOW if sequence.low_priority else Priority.NORMAL
        sequence.bank = self
        shared = self.tree.match(sequence.tokens[:-1], sequence.cache_salt, touch=False).num_tokens
        reused = self._planner.worth_reusing(shared, len(sequence.tokens))
        # an edge ends where the sequence parts from what was there
        self.tree.match(sequence.tokens[:reused], sequence.cache_salt)
        sequence.cursor = self.tree.cursor(sequence.cache_salt, tokens=sequence.tokens[:reused], priority=priority)
        sequence.set_rows(sequence.cursor.matched)
        self._follow(sequence)
        self.sequences.append(sequence)
        self._looked = -1

    def leave(self, sequence: Sequence) -> None:
        """The sequence is gone; what it computed stays cached until the rows are needed."""
        self.sequences.remove(sequence)
        assert sequence.cursor is not None
        sequence.cursor.close()
        sequence.cursor = sequence.bank = sequence.prefix_owner = None
        sequence.set_rows(np.empty(0, np.int32))
        for other in self.sequences:
            if other.prefix_owner is sequence:
                self.catch_up(other)
        self._looked = -1

    def _follow(self, sequence: Sequence) -> None:
        """If an older sequence is about to compute a longer beginning of this one's prompt, wait for it."""
        for other in self.sequences:
            if other is sequence or other.prefix_owner is not None:
                continue  # nobody waits for one that waits
            common = _common(other.tokens, sequence.tokens) if other.cache_salt == sequence.cache_salt else 0
            common = min(common, len(sequence.tokens) - 1)
            if common > max(sequence.num_cached, other.num_cached, sequence.prefix_owner_tokens):
                sequence.prefix_owner, sequence.prefix_owner_tokens = other, common

    def catch_up(self, sequence: Sequence) -> None:
        """The leader is where the two part, or gone: take over what it computed and go on alone."""
        sequence.prefix_owner, sequence.prefix_owner_tokens = None, 0
        self.take_over(sequence)
        self._follow(sequence)

    def take_over(self, sequence: Sequence) -> None:
        """Looks again for the sequence's tokens in the tree; another one may have computed some meanwhile."""
        assert sequence.cursor is not None
        cursor = self.tree.cursor(sequence.cache_salt, tokens=sequence.tokens[:-1], priority=sequence.cursor.priority)
        if cursor.num_tokens <= sequence.num_cached:
            cursor.close()
            return
        sequence.cached_tokens += cursor.num_tokens - sequence.num_cached
        sequence.cursor.close()
        sequence.cursor = cursor
        sequence.set_rows(cursor.matched)

    # ---- rows ----

    def pack(self, planned: StepPlan) -> bool:
        """Before a pass: brings rows below others' where that makes it cheaper. Whether any was moved: then plan again.

        What passes cost more than they would with everybody packed is added up, and copies are made as far as they cost
        no more than that: all in all, moving rows never costs more than leaving them has."""
        if self._move is None or not self._may_gain():
            return False
        planner, seqs = self._planner, sorted(self.sequences, key=self._turn)
        highs, live = packed_highs([s.rows for s in seqs], self.pool.num_rows)
        self._num_live = int(live.sum())
        high = {id(s): h for s, h in zip(seqs, highs, strict=True)}
        if planned != planner.plan(self.sequences, in_turn=False):
            return False  # the turn of somebody whom a chunk left out: where rows lie makes no difference to it
        better = planner.plan(self.sequences, [high[id(s)] for s in self.sequences], in_turn=False)
        assert better is not None
        now, then = (planner.seconds_per_token(self.sequences, p) for p in (planned, better))
        if then >= now:
            return False
        tokens = sum(p.num_tokens for p in planned.parts)
        self._overspent += (now - then) * tokens
        carried = {id(self.sequences[p.who]) for p in better.parts}
        while id(seqs[-1]) not in carried:
            seqs.pop()
        waiting = any(s.num_pending == 1 for s in self.sequences)
        most = min(self._overspent, PAUSE * max(planner.costs)) if waiting else self._overspent
        return self._bring_down(seqs, planner.groups[better.slot].history, most)

    def _turn(self, sequence: Sequence) -> tuple[bool, bool, tuple[bool, int]]:
        """Whose rows should lie lowest: prompts, in their order, then those who have few."""
        size = len(sequence.rows)
        goes_singly = sequence.num_pending == 1 or self._planner.chunk_slot(size) is None
        return sequence.blocked, goes_singly, (False, size) if goes_singly else sequence.order

    def _may_gain(self) -> bool:
        """Whether packing could make a pass cheaper, as far as can be seen at a glance; a closer look now and then."""
        self._looked += 1
        planner, high, low = self._planner, max(s.high for s in self.sequences), self._num_live
        tight = planner.chunk_slot(high) == planner.chunk_slot(low) is not None and planner.decode_slot(
            high
        ) == planner.decode_slot(low)
        return not tight or self._looked % LOOK_EVERY == 0

    def _bring_down(self, sequences: list[Sequence], limit: int, seconds: float) -> bool:
        """Moves these sequences' rows below `limit`, or the highest of them, as far as that takes no more than so many
        seconds."""
        copies, moved = seconds / max(self._planner.copy, 1e-9), False
        while True:
            highs, wanted = packed_highs([s.rows for s in sequences], self.pool.num_rows)
            most, room = int(wanted[limit:].sum()), min(limit - highs[-1], self._planner.max_width)
            if not most:
                self._overspent = 0.0
            if not most or copies < 2:
                return moved
            self._make_free(most + room, low_priority=all(s.low_priority for s in self.sequences))
            moves = clear_below(limit, wanted, self.pool.held, room, most)
            while (cost := sum(m.copies for m in moves)) > copies:
                most, room = (most, 0) if room else (most // 2, 0)
                moves = clear_below(limit, wanted, self.pool.held, room, most)
            if not moves[1].old.size:
                return moved
            self._relocate(moves)
            copies, moved = copies - cost, True
            self._overspent -= cost * self._planner.copy

    def _make_free(self, count: int, *, low_priority: bool) -> None:
        """Has `count` rows free, as far as what nobody uses may go; many at a time, for they are to lie side by
        side."""
        missing = count - self.pool.num_free
        if missing > 0:
            priority = Priority.LOW if low_priority else Priority.NORMAL
            count = max(missing, self.pool.num_rows // EVICT_SHARE)
            self.evicted_rows += self.tree.evict(count, priority=priority, live_since=self._live_since())

    def _relocate(self, moves: Iterable[Moves]) -> None:
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

    def take(self, count: int, *, above: int = 0, low_priority: bool = False) -> Rows | None:
        """`count` rows for a pass: the lowest ones in one straight run, else the lowest ones; a single one from row
        `above` on if there is any. Cached prefixes that nobody uses give way. None where even that is not enough."""
        self._make_free(count, low_priority=low_priority)
        if not self.pool.can_allocate(count):
            return None
        if count == 1:
            return np.array((self.pool.allocate_row(above),), np.int32)
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

    def commit(self, sequence: Sequence, tokens: array, rows: Rows) -> None:
        """`tokens` are cached in `rows`, which the pass held. Where another sequence was first, its rows are used
        instead."""
        assert sequence.cursor is not None
        final = sequence.cursor.extend(tokens, rows)
        self.pool.release(rows)
        self._num_live += len(rows)
        sequence.add_rows(final)

    def check_integrity(self) -> None:
        """Between passes: pool and tree agree, and every sequence's rows are pinned by its cursor."""
        self.pool.check_integrity()
        self.tree.check_integrity()
        if self.pool.num_used != self.tree.num_rows:
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

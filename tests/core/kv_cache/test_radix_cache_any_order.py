"""The prefix tree against a dictionary of every prefix, one token at a time: rows, last use, priority, pins, in any
order of operations."""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from prefix_trees import Path, check, insert, paths

from axpress.core.kv_cache.radix_cache import Cursor, Priority, RadixCache
from axpress.core.kv_cache.row_pool import RowPool


@dataclass
class Entry:
    row: int
    priority: int
    used: int


@dataclass
class Sequence:
    """A generation as the engine will see it: it holds its rows, and its cursor follows its tokens."""

    cursor: Cursor
    cache_salt: bytes
    priority: Priority
    tokens: tuple[int, ...] = ()
    rows: list[int] = field(default_factory=list)


TOKENS = st.lists(st.integers(0, 2), max_size=9)
SALTS = st.sampled_from([b"", b"tenant"])
PRIORITIES = st.sampled_from(list(Priority))


class TreeMachine(RuleBasedStateMachine):
    """Any order of operations. The model knows each prefix by itself: row, priority and last use of every single
    token."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = RowPool(48)
        self.tree = RadixCache(self.pool)
        self.model: dict[Path, Entry] = {}
        self.running: list[Sequence] = []
        self.held: list[list[int]] = []  # rows of sequences that have lost their cursor

    def known(self, cache_salt: bytes, tokens: tuple[int, ...]) -> list[int]:
        """Rows of the longest prefix."""
        rows = []
        for n in range(1, len(tokens) + 1):
            if (cache_salt, tokens[:n]) not in self.model:
                break
            rows.append(self.model[cache_salt, tokens[:n]].row)
        return rows

    def use(self, cache_salt: bytes, tokens: tuple[int, ...], priority: int) -> None:
        for n in range(1, len(tokens) + 1):
            entry = self.model[cache_salt, tokens[:n]]
            entry.priority, entry.used = max(entry.priority, priority), self.tree.tick

    def record(self, cache_salt: bytes, tokens: tuple[int, ...], rows: list[int], priority: int) -> list[int]:
        """The rows that stand for `tokens` after the tree was told `rows`."""
        first = self.known(cache_salt, tokens)
        for n in range(len(first), len(tokens)):
            self.model[cache_salt, tokens[: n + 1]] = Entry(rows[n], priority, 0)
        return first + rows[len(first) :]

    def dropped(self, limit: int, priority: int, live_since: int) -> list[Path]:
        """The prefixes that eviction takes, in order: one token at a time, the oldest of all that could go."""
        left, gone = dict(self.model), []
        pinned = {(s.cache_salt, s.tokens) for s in self.running}
        while len(gone) < limit:
            inner = {(cache_salt, tokens[:-1]) for cache_salt, tokens in left}
            free = [p for p, e in left.items() if p not in inner and p not in pinned and self.pool.counts[e.row] == 1]
            if not free:
                break
            oldest = min(free, key=lambda p: (left[p].priority, left[p].used))
            if left[oldest].priority > priority and left[oldest].used >= live_since:
                break
            gone.append(oldest)
            del left[oldest]
        return gone

    def rows(self, n: int) -> np.ndarray | None:
        """n rows, evicting as the engine will; None where the bank is too full."""
        if not self.pool.can_allocate(n):
            self.make_room(n - self.pool.num_free, Priority.NORMAL, 0)
        return self.pool.allocate(n) if self.pool.can_allocate(n) else None

    @rule(cache_salt=SALTS, tokens=TOKENS, priority=PRIORITIES)
    def open_any(self, cache_salt: bytes, tokens: list[int], priority: Priority) -> None:
        self.open(cache_salt, tokens, priority)

    def open(self, cache_salt: bytes, tokens: list[int], priority: Priority) -> None:
        cursor = self.tree.cursor(cache_salt, tokens=tokens, priority=priority)
        rows = self.known(cache_salt, tuple(tokens))
        assert cursor.matched.tolist() == rows
        self.pool.hold(cursor.matched)
        self.running.append(Sequence(cursor, cache_salt, priority, tuple(tokens[: len(rows)]), rows))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=TOKENS, one_by_one=st.booleans())
    def extend(self, data: st.DataObject, tokens: list[int], one_by_one: bool) -> None:
        seq = data.draw(st.sampled_from(self.running))
        given = self.rows(len(tokens))
        if given is None:
            return
        if one_by_one:
            use = [seq.cursor.append(t, r) for t, r in zip(tokens, given.tolist(), strict=True)]
        else:
            use = seq.cursor.extend(tokens, given).tolist()
        seq.tokens += tuple(tokens)
        seq.rows = self.record(seq.cache_salt, seq.tokens, seq.rows + given.tolist(), seq.priority)
        assert use == seq.rows[len(seq.rows) - len(tokens) :]
        self.pool.hold(np.array(use, np.int32))
        self.pool.release(given)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def open_beside(self, data: st.DataObject) -> None:
        """Another choice of one prompt."""
        seq = data.draw(st.sampled_from(self.running))
        self.open(seq.cache_salt, list(seq.tokens), seq.priority)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), keep=st.booleans())
    def close(self, data: st.DataObject, keep: bool) -> None:
        seq = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        seq.cursor.close()
        self.use(seq.cache_salt, seq.tokens, seq.priority)
        if keep:
            self.held.append(seq.rows)
        else:
            self.pool.release(np.array(seq.rows, np.int32))

    @precondition(lambda self: self.held)
    @rule()
    def let_go(self) -> None:
        self.pool.release(np.array(self.held.pop(0), np.int32))

    @rule(cache_salt=SALTS, tokens=TOKENS, priority=PRIORITIES)
    def insert(self, cache_salt: bytes, tokens: list[int], priority: Priority) -> None:
        given = self.rows(len(tokens))
        if given is None:
            return
        use = insert(self.tree, tokens, given, cache_salt, priority)
        assert use.tolist() == self.record(cache_salt, tuple(tokens), given.tolist(), priority)
        self.use(cache_salt, tuple(tokens), priority)
        self.pool.release(given)

    @rule(cache_salt=SALTS, tokens=TOKENS, touch=st.booleans())
    def match(self, cache_salt: bytes, tokens: list[int], touch: bool) -> None:
        match = self.tree.match(tokens, cache_salt, touch=touch)
        rows = self.known(cache_salt, tuple(tokens))
        assert (match.rows.tolist(), match.num_tokens) == (rows, len(rows))
        if touch:
            self.use(cache_salt, tuple(tokens[: len(rows)]), 0)

    @rule(limit=st.integers(0, 20), priority=PRIORITIES, live=st.integers(0, 30))
    def evict(self, limit: int, priority: Priority, live: int) -> None:
        self.make_room(limit, priority, self.tree.tick - live)

    def make_room(self, limit: int, priority: Priority, live_since: int) -> None:
        gone = self.dropped(limit, priority, live_since)
        free = self.pool.num_free
        assert (
            self.tree.evict(limit, priority=priority, live_since=live_since) == len(gone) == self.pool.num_free - free
        )
        for path in gone:
            del self.model[path]

    @invariant()
    def agrees(self) -> None:
        check(self.tree)
        assert paths(self.tree) == {path: entry.row for path, entry in self.model.items()}
        assert self.tree.num_rows == len(self.model)
        counts = np.zeros(self.pool.num_rows, np.int32)
        for rows in ([e.row for e in self.model.values()], *self.held, *(s.rows for s in self.running)):
            np.add.at(counts, np.array(rows, np.intp), 1)
        assert self.pool.counts.tolist() == counts.tolist()


TreeMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_any_order_of_operations = TreeMachine.TestCase

"""The prefix tree against a dictionary of every prefix, one token at a time; and its rules, one test each."""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
import numpy as np
import pytest
from axpress.core.prefix import Cursor, Node, PrefixTree, Priority
from axpress.core.rows import IntegrityError, RowPool
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

BACKGROUND, NORMAL = Priority.BACKGROUND, Priority.NORMAL
Path = tuple[bytes, tuple[int, ...]]


def make(num_rows: int = 100) -> tuple[RowPool, PrefixTree]:
    pool = RowPool(num_rows)
    return pool, PrefixTree(pool)


def store(tree: PrefixTree, tokens: list[int], salt: bytes = b"", priority: Priority = NORMAL) -> list[int]:
    """What a request leaves behind: its rows in the tree, held by nobody else."""
    given = tree.pool.allocate(len(tokens))
    rows = tree.insert(tokens, given, salt, priority=priority)
    tree.pool.release(given)
    check(tree)
    return rows.tolist()


def check(tree: PrefixTree) -> None:
    tree.pool.check_integrity()
    tree.check_integrity()


def known(tree: PrefixTree, tokens: list[int], salt: bytes = b"") -> int:
    return tree.match(tokens, salt, touch=False).num_tokens


def paths(tree: PrefixTree) -> dict[Path, int]:
    """Every prefix in the tree, with the row of its last token."""
    found: dict[Path, int] = {}
    todo: list[tuple[Node, tuple[int, ...]]] = [(root, ()) for root in tree.roots.values()]
    for node, before in todo:
        for token, row in zip(node.tokens, node.rows, strict=True):
            before = (*before, token)
            found[node.salt, before] = row
        todo.extend((child, before) for child in node.children.values())
    return found


def num_nodes(tree: PrefixTree) -> int:
    return len(tree._nodes())


def test_longest_prefix_token_by_token() -> None:
    _, tree = make()
    rows = store(tree, [1, 2, 3, 4, 5])
    for n in range(6):
        match = tree.match([*range(1, n + 1), 9, 9])
        assert (match.num_tokens, match.rows.tolist(), match.rows.dtype) == (n, rows[:n], np.int32)
        check(tree)


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda t: np.array(t, np.int32)])
def test_tokens_in_any_form(kind: type) -> None:
    _, tree = make()
    store(tree, kind([1, 2, 300_000]))
    assert known(tree, kind([1, 2, 300_000, 4])) == 3
    assert known(tree, kind([1, 2, 300_001])) == 2
    assert known(tree, kind([])) == 0


def test_shared_prefix_is_stored_once() -> None:
    pool, tree = make(1200)  # a newcomer has rows of its own until it learns of the shared ones
    system = list(range(100, 612))
    for client in range(20):
        store(tree, [*system, client, client + 1])
    assert tree.num_rows == pool.num_used == 512 + 20 * 2
    assert known(tree, [*system, 7, 8]) == 514


def test_known_tokens_keep_their_rows_and_the_callers_are_given_back() -> None:
    pool, tree = make()
    first = store(tree, [1, 2, 3])
    mine = pool.allocate(5)
    use = tree.insert([1, 2, 3, 4, 5], mine)
    assert use.tolist() == first + mine[3:].tolist()
    pool.hold(use)
    pool.release(mine)
    check(tree)
    assert pool.num_used == 5 and pool.counts[use].tolist() == [2] * 5


def test_salts_see_only_their_own() -> None:
    pool, tree = make()
    store(tree, [1, 2, 3], b"a")
    assert known(tree, [1, 2, 3], b"b") == known(tree, [1, 2, 3]) == 0
    store(tree, [1, 2, 3], b"b")
    assert tree.num_rows == 6
    tree.evict(3)
    assert (known(tree, [1, 2, 3], b"a"), known(tree, [1, 2, 3], b"b")) == (0, 3), "all salts share one order"
    tree.evict(3)
    assert not tree.roots, "a salt without entries is forgotten"
    assert pool.num_used == 0


def test_least_recently_used_goes_first_from_its_end() -> None:
    pool, tree = make()
    store(tree, [1, 2, 3, 4])
    store(tree, [5, 6, 7, 8])
    tree.match([1, 2, 3, 4])
    assert tree.evict(3) == 3
    assert (known(tree, [5, 6, 7, 8]), known(tree, [1, 2, 3, 4])) == (1, 4)
    assert tree.evict(2) == 2
    assert (known(tree, [5, 6, 7, 8]), known(tree, [1, 2, 3, 4])) == (0, 3)
    check(tree)
    assert tree.evict(100) == 3 and pool.num_used == 0


def test_a_parent_outlives_its_children() -> None:
    _, tree = make()
    store(tree, [1, 2, 3, 4])
    store(tree, [7, 8])
    store(tree, [1, 2, 5, 6])
    tree.evict(2)
    assert known(tree, [1, 2, 3, 4]) == 2, "the oldest branch"
    tree.evict(2)
    assert known(tree, [7, 8]) == 0, "the prefix of the newest branch was used with it"
    assert known(tree, [1, 2, 5, 6]) == 4


def test_using_half_an_edge_keeps_that_half() -> None:
    _, tree = make()
    store(tree, [1, 2, 3, 4])
    store(tree, [5, 6])
    tree.match([1, 2, 9])
    tree.evict(4)
    assert (known(tree, [1, 2, 3, 4]), known(tree, [5, 6])) == (2, 0)
    check(tree)


def test_looking_without_touching_changes_nothing() -> None:
    _, tree = make()
    store(tree, [1, 2, 3])
    store(tree, [4, 5, 6])
    tree.match([1, 2, 9], touch=False)
    assert num_nodes(tree) == 3
    tree.evict(1)
    assert known(tree, [1, 2, 3]) == 2


def test_background_entries_go_first() -> None:
    _, tree = make()
    store(tree, [1, 2, 3])
    store(tree, [4, 5, 6], priority=BACKGROUND)
    store(tree, [1, 7, 8], priority=BACKGROUND)
    tree.match([4, 5, 6])
    tree.evict(3)
    assert [known(tree, t) for t in ([1, 2, 3], [1, 7, 8], [4, 5, 6])] == [3, 1, 2], "shared with a normal request, token 1 is normal"
    check(tree)


def test_a_background_request_spares_live_conversations() -> None:
    _, tree = make()
    store(tree, [1, 2])
    live_since = tree.tick + 1
    store(tree, [3, 4])
    store(tree, [5, 6], priority=BACKGROUND)
    assert tree.evict(100, priority=BACKGROUND) == 2, "normal entries are not its own to drop"
    assert tree.evict(100, priority=BACKGROUND, live_since=live_since) == 2, "unless they lie idle"
    assert (known(tree, [1, 2]), known(tree, [3, 4]), known(tree, [5, 6])) == (0, 2, 0)
    check(tree)
    assert tree.evict(100) == 2


def test_normal_use_makes_background_entries_normal() -> None:
    _, tree = make()
    store(tree, [1, 2, 3, 4], priority=BACKGROUND)
    tree.cursor(tokens=[1, 2, 9]).close()
    assert tree.evict(100, priority=BACKGROUND) == 2
    assert known(tree, [1, 2, 3, 4]) == 2
    store(tree, [1, 2, 5], priority=BACKGROUND)
    assert tree.evict(100, priority=BACKGROUND) == 1, "what a background request adds to a normal entry is background"


def test_what_lies_before_a_cursor_stays() -> None:
    _, tree = make()
    store(tree, [1, 2, 3, 4])
    store(tree, [1, 2, 5, 6])
    with tree.cursor(tokens=[1, 2, 3]) as cursor:
        assert (cursor.num_tokens, len(cursor.matched)) == (3, 3)
        check(tree)
        assert tree.num_evictable() == tree.evict(100) == 3
        assert known(tree, [1, 2, 3, 4]) == 3
        assert tree.evict(100) == 0
        check(tree)
    check(tree)
    assert tree.evict(100) == 3 and not tree.roots


def test_a_cursor_at_the_start_pins_nothing_and_survives() -> None:
    pool, tree = make()
    cursor = tree.cursor(b"x")
    store(tree, [1, 2], b"x")
    assert tree.evict(100) == 2
    rows = pool.allocate(2)
    assert cursor.extend([3, 4], rows).tolist() == rows.tolist()
    check(tree)
    cursor.close()
    cursor.close()
    check(tree)
    assert known(tree, [3, 4], b"x") == 2


def test_rows_that_sequences_hold_are_not_dropped() -> None:
    pool, tree = make()
    rows = np.array(store(tree, [1, 2, 3, 4]), np.int32)
    pool.hold(rows[:2])
    assert tree.num_evictable() == tree.evict(100) == 2
    assert known(tree, [1, 2, 3, 4]) == 2 and tree.evict(1) == 0
    check(tree)
    pool.release(rows[:2])
    assert tree.evict(100) == 2


def test_an_answer_grows_token_by_token_in_one_edge() -> None:
    pool, tree = make(3000)
    tokens = [(i * 7919) % 50_000 for i in range(2500)]
    cursor = tree.cursor()
    for token in tokens:
        row = pool.allocate_row()
        assert cursor.append(token, row) == row
        pool.release_row(row)
    check(tree)
    assert (num_nodes(tree), cursor.num_tokens, known(tree, tokens)) == (2, 2500, 2500)
    assert tree.evict(3000) == 0
    cursor.close()
    assert tree.evict(3000) == 2500


def test_the_same_answer_again_follows_the_first() -> None:
    pool, tree = make()
    rows = store(tree, [1, 2, 3, 4, 5, 6])
    cursor = tree.cursor(tokens=[1, 2])
    mine = pool.allocate_row()
    assert [cursor.append(token, mine) for token in (3, 4, 5)] == rows[2:5]
    assert num_nodes(tree) == 2, "following an edge does not cut it"
    assert cursor.append(9, mine) == mine
    check(tree)
    assert known(tree, [1, 2, 3, 4, 5, 9]) == known(tree, [1, 2, 3, 4, 5, 6]) == 6


def test_choices_of_one_prompt_share_it() -> None:
    pool, tree = make()
    first = tree.cursor()
    first.extend([1, 2, 3], pool.allocate(3))
    second = first.fork()
    for cursor, token in ((first, 4), (second, 5), (first, 6), (second, 7)):
        cursor.append(token, pool.allocate_row())
        check(tree)
    answers = {path: row for (_, path), row in paths(tree).items() if len(path) > 3}
    assert answers == {(1, 2, 3, 4): 3, (1, 2, 3, 5): 4, (1, 2, 3, 4, 6): 5, (1, 2, 3, 5, 7): 6}
    assert tree.num_rows == 7
    first.close()
    second.close()
    check(tree)


def test_forgotten_branches_leave_one_edge() -> None:
    _, tree = make(400)
    for n in range(1, 40):  # an editor that asks at every key stroke, and whose answers nobody takes
        store(tree, [*range(n), 1000 + n, 1001, 1002])
        tree.evict(3) if n > 1 else None
        check(tree)
    assert known(tree, list(range(39))) == 39
    assert num_nodes(tree) <= 4


def test_our_own_mistakes_are_caught() -> None:
    pool, tree = make()
    cursor = tree.cursor()
    rows = pool.allocate(2)
    with pytest.raises(IntegrityError, match="3 tokens come with 2 rows"):
        cursor.extend([1, 2, 3], rows)
    with pytest.raises(IntegrityError, match="free"):
        cursor.extend([1, 2], np.array([0, 5], np.int32))
    with pytest.raises(IntegrityError, match="free"):
        cursor.append(1, 7)
    check(tree)
    cursor.close()
    for use in (lambda: cursor.extend([1, 2], rows), lambda: cursor.append(1, 0), cursor.fork):
        with pytest.raises(IntegrityError, match="closed"):
            use()
    assert tree.num_rows == 0 and not tree.roots


@pytest.mark.parametrize("damage", ["num_rows", "free", "twice", "parent", "heap", "cursor", "lengths", "filed"])
def test_integrity_finds_what_is_wrong(damage: str) -> None:
    pool, tree = make()
    rows = store(tree, [1, 2, 3, 4])
    store(tree, [1, 2, 5, 6])
    cursor = tree.cursor(tokens=[1, 2])
    node = cursor.node
    leaf = node.children[5]
    if damage == "num_rows":
        tree.num_rows += 1
    elif damage == "free":
        pool.release_row(rows[3])
    elif damage == "twice":
        leaf.rows[0] = leaf.rows[1]
    elif damage == "parent":
        leaf.parent = None
    elif damage == "heap":
        tree._heap.clear()
    elif damage == "cursor":
        cursor.offset = 3
    elif damage == "lengths":
        leaf.tokens.append(1)
    else:
        node.children[9] = node.children.pop(5)
    with pytest.raises(IntegrityError):
        tree.check_integrity()


@dataclass
class Entry:
    row: int
    priority: int
    used: int


@dataclass
class Sequence:
    """A generation as the engine will see it: it holds its rows, and its cursor follows its tokens."""

    cursor: Cursor
    salt: bytes
    priority: Priority
    tokens: tuple[int, ...] = ()
    rows: list[int] = field(default_factory=list)


TOKENS = st.lists(st.integers(0, 2), max_size=9)
SALTS = st.sampled_from([b"", b"tenant"])
PRIORITIES = st.sampled_from(list(Priority))


class TreeMachine(RuleBasedStateMachine):
    """Any order of operations. The model knows each prefix by itself: row, priority and last use of every single token."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = RowPool(48)
        self.tree = PrefixTree(self.pool)
        self.model: dict[Path, Entry] = {}
        self.running: list[Sequence] = []
        self.held: list[list[int]] = []  # rows of sequences that have lost their cursor

    def known(self, salt: bytes, tokens: tuple[int, ...]) -> list[int]:
        """Rows of the longest prefix."""
        rows = []
        for n in range(1, len(tokens) + 1):
            if (salt, tokens[:n]) not in self.model:
                break
            rows.append(self.model[salt, tokens[:n]].row)
        return rows

    def use(self, salt: bytes, tokens: tuple[int, ...], priority: int) -> None:
        for n in range(1, len(tokens) + 1):
            entry = self.model[salt, tokens[:n]]
            entry.priority, entry.used = max(entry.priority, priority), self.tree.tick

    def record(self, salt: bytes, tokens: tuple[int, ...], rows: list[int], priority: int) -> list[int]:
        """The rows that stand for `tokens` after the tree was told `rows`."""
        first = self.known(salt, tokens)
        for n in range(len(first), len(tokens)):
            self.model[salt, tokens[: n + 1]] = Entry(rows[n], priority, 0)
        return first + rows[len(first) :]

    def dropped(self, limit: int, priority: int, live_since: int) -> list[Path]:
        """The prefixes that eviction takes, in order: one token at a time, the oldest of all that could go."""
        left, gone = dict(self.model), []
        pinned = {(s.salt, s.tokens) for s in self.running}
        while len(gone) < limit:
            inner = {(salt, tokens[:-1]) for salt, tokens in left}
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
            self.make_room(n - self.pool.num_free, NORMAL, 0)
        return self.pool.allocate(n) if self.pool.can_allocate(n) else None

    @rule(salt=SALTS, tokens=TOKENS, priority=PRIORITIES)
    def open(self, salt: bytes, tokens: list[int], priority: Priority) -> None:
        cursor = self.tree.cursor(salt, tokens=tokens, priority=priority)
        rows = self.known(salt, tuple(tokens))
        assert cursor.matched.tolist() == rows
        self.pool.hold(cursor.matched)
        self.running.append(Sequence(cursor, salt, priority, tuple(tokens[: len(rows)]), rows))

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
        seq.rows = self.record(seq.salt, seq.tokens, seq.rows + given.tolist(), seq.priority)
        assert use == seq.rows[len(seq.rows) - len(tokens) :]
        self.pool.hold(np.array(use, np.int32))
        self.pool.release(given)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(self.running))
        self.pool.hold(np.array(seq.rows, np.int32))
        self.running.append(Sequence(seq.cursor.fork(), seq.salt, seq.priority, seq.tokens, list(seq.rows)))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), keep=st.booleans())
    def close(self, data: st.DataObject, keep: bool) -> None:
        seq = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        seq.cursor.close()
        self.use(seq.salt, seq.tokens, seq.priority)
        if keep:
            self.held.append(seq.rows)
        else:
            self.pool.release(np.array(seq.rows, np.int32))

    @precondition(lambda self: self.held)
    @rule()
    def let_go(self) -> None:
        self.pool.release(np.array(self.held.pop(0), np.int32))

    @rule(salt=SALTS, tokens=TOKENS, priority=PRIORITIES)
    def insert(self, salt: bytes, tokens: list[int], priority: Priority) -> None:
        given = self.rows(len(tokens))
        if given is None:
            return
        use = self.tree.insert(tokens, given, salt, priority=priority)
        assert use.tolist() == self.record(salt, tuple(tokens), given.tolist(), priority)
        self.use(salt, tuple(tokens), priority)
        self.pool.release(given)

    @rule(salt=SALTS, tokens=TOKENS, touch=st.booleans())
    def match(self, salt: bytes, tokens: list[int], touch: bool) -> None:
        match = self.tree.match(tokens, salt, touch=touch)
        rows = self.known(salt, tuple(tokens))
        assert (match.rows.tolist(), match.num_tokens) == (rows, len(rows))
        if touch:
            self.use(salt, tuple(tokens[: len(rows)]), 0)

    @rule(limit=st.integers(0, 20), priority=PRIORITIES, live=st.integers(0, 30))
    def evict(self, limit: int, priority: Priority, live: int) -> None:
        self.make_room(limit, priority, self.tree.tick - live)

    def make_room(self, limit: int, priority: Priority, live_since: int) -> None:
        gone = self.dropped(limit, priority, live_since)
        free = self.pool.num_free
        assert self.tree.evict(limit, priority=priority, live_since=live_since) == len(gone) == self.pool.num_free - free
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
        assert self.tree.num_evictable() == len(self.dropped(1000, NORMAL, 0))


TreeMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_any_order_of_operations = TreeMachine.TestCase

"""The rules of the prefix tree, one test each (any order of operations: test_radix_cache_any_order.py)."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from prefix_trees import check, insert, num_nodes, paths

from axpress.core.kv_cache.radix_cache import Priority, RadixCache
from axpress.core.kv_cache.row_pool import IntegrityError, RowPool

LOW, NORMAL = Priority.LOW, Priority.NORMAL


def make(num_rows: int = 100) -> tuple[RowPool, RadixCache]:
    pool = RowPool(num_rows)
    return pool, RadixCache(pool)


def store(tree: RadixCache, tokens: list[int], cache_salt: bytes = b"", priority: Priority = NORMAL) -> list[int]:
    """What a request leaves behind: its rows in the tree, held by nobody else."""
    given = tree.pool.allocate(len(tokens))
    rows = insert(tree, tokens, given, cache_salt, priority)
    tree.pool.release(given)
    check(tree)
    return rows.tolist()


def known(tree: RadixCache, tokens: list[int], cache_salt: bytes = b"") -> int:
    return tree.match(tokens, cache_salt, touch=False).num_tokens


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
    use = insert(tree, [1, 2, 3, 4, 5], mine)
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
    store(tree, [4, 5, 6], priority=LOW)
    store(tree, [1, 7, 8], priority=LOW)
    tree.match([4, 5, 6])
    tree.evict(3)
    assert [known(tree, t) for t in ([1, 2, 3], [1, 7, 8], [4, 5, 6])] == [3, 1, 2], (
        "shared with a normal request, token 1 is normal"
    )
    check(tree)


def test_a_background_request_spares_live_conversations() -> None:
    _, tree = make()
    store(tree, [1, 2])
    live_since = tree.tick + 1
    store(tree, [3, 4])
    store(tree, [5, 6], priority=LOW)
    assert tree.evict(100, priority=LOW) == 2, "normal entries are not its own to drop"
    assert tree.evict(100, priority=LOW, live_since=live_since) == 2, "unless they lie idle"
    assert (known(tree, [1, 2]), known(tree, [3, 4]), known(tree, [5, 6])) == (0, 2, 0)
    check(tree)
    assert tree.evict(100) == 2


def test_normal_use_makes_background_entries_normal() -> None:
    _, tree = make()
    store(tree, [1, 2, 3, 4], priority=LOW)
    tree.cursor(tokens=[1, 2, 9]).close()
    assert tree.evict(100, priority=LOW) == 2
    assert known(tree, [1, 2, 3, 4]) == 2
    store(tree, [1, 2, 5], priority=LOW)
    assert tree.evict(100, priority=LOW) == 1, "what a background request adds to a normal entry is background"
    with closing(tree.cursor(tokens=[1, 2], priority=LOW)) as cursor:
        cursor.append(7, tree.pool.allocate_row())
    tree.pool.release_row(2)
    assert tree.evict(100, priority=LOW) == 1, "also token by token"


def test_a_prefix_is_as_recent_as_what_followed_it() -> None:
    _, tree = make()
    store(tree, [1, 2])
    store(tree, [1, 2, 3], priority=LOW)
    store(tree, [5, 6])
    tree.match([1, 2, 3])
    tree.evict(1)
    assert known(tree, [1, 2, 3]) == 2
    tree.evict(2)
    assert (known(tree, [1, 2]), known(tree, [5, 6])) == (2, 0), "used through its background branch"


def test_what_lies_before_a_cursor_stays() -> None:
    _, tree = make()
    store(tree, [1, 2, 3, 4])
    store(tree, [1, 2, 5, 6])
    with closing(tree.cursor(tokens=[1, 2, 3])) as cursor:
        assert (cursor.num_tokens, len(cursor.matched)) == (3, 3)
        check(tree)
        assert tree.evict(100) == 3
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
    assert tree.evict(100) == 2
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
    second = tree.cursor(tokens=[1, 2, 3])
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


def test_a_cursor_survives_the_merge_of_its_edge() -> None:
    pool, tree = make()
    store(tree, [1, 2, 3])
    with closing(tree.cursor(tokens=[1, 2])) as cursor, closing(tree.cursor(tokens=[1])) as above:
        store(tree, [1, 2, 4, 5])
        store(tree, [1, 2, 4])
        tree.evict(1)
        check(tree)
        assert (known(tree, [1, 2, 3]), num_nodes(tree)) == (2, 3)
        assert cursor.extend([4, 6], pool.allocate(2)).tolist()[0] == tree.match([1, 2, 4]).rows[2]
        above.append(9, pool.allocate_row())
        check(tree)
    check(tree)
    assert (known(tree, [1, 2, 4, 6]), known(tree, [1, 9]), known(tree, [1, 2, 4, 5])) == (4, 2, 4)


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
    for use in (lambda: cursor.extend([1, 2], rows), lambda: cursor.append(1, 0)):
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

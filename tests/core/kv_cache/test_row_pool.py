"""Rows are counted right whatever happens, and low rows go first."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from axpress.core.kv_cache.row_pool import IntegrityError, NoRows, RowPool

SIZE = 24


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_lowest_rows_go_first() -> None:
    pool = RowPool(10)
    assert pool.num_free == 10
    assert pool.allocate(4).tolist() == [0, 1, 2, 3]
    pool.release(rows(1, 2))
    assert (pool.allocate_row(), pool.allocate(2).tolist()) == (1, [2, 4])
    pool.release(rows(4))
    assert pool.release(rows(0, 1, 2)) == 3
    assert pool.allocate(4).tolist() == [0, 1, 2, 4]
    assert pool.release_row(3) and pool.held.tolist() == [True] * 3 + [False, True] + [False] * 5
    pool.check_integrity()


def test_rows_are_int32_whatever_the_number() -> None:
    pool = RowPool(8)
    run = pool.allocate_run(2)
    assert run is not None
    assert {a.dtype for a in (pool.allocate(0), pool.allocate(1), pool.allocate(2), run)} == {np.dtype(np.int32)}


def test_a_run_is_straight_or_refused() -> None:
    pool = RowPool(8)
    pool.allocate(8)
    pool.release(rows(0, 2, 3, 5, 6, 7))
    assert pool.allocate_run(4) is None and pool.can_allocate(4)
    run = pool.allocate_run(2)
    assert run is not None and run.tolist() == [2, 3], "the lowest run, not the lowest rows"
    run = pool.allocate_run(3)
    assert run is not None and run.tolist() == [5, 6, 7]
    assert pool.num_free == 1
    pool.check_integrity()


def test_shared_rows_are_free_when_the_last_holder_lets_go() -> None:
    pool = RowPool(4)
    held = pool.allocate(3)
    pool.hold(held[:2])
    pool.hold_row(0)
    assert pool.counts.tolist() == [3, 2, 1, 0]
    assert pool.release(held) == 1 and pool.num_used == 2
    assert pool.release(rows(0, 1)) == 1
    assert not pool.counts.flags.writeable
    assert pool.release_row(0) and pool.num_free == 4


def test_a_row_named_twice_counts_twice() -> None:
    pool = RowPool(4)
    pool.allocate(2)
    pool.hold(rows(1, 1))
    assert pool.counts.tolist() == [1, 3, 0, 0]
    assert pool.release(rows(1, 1, 1)) == 1
    with pytest.raises(IntegrityError, match="row 0"):
        pool.release(rows(0, 0))
    pool.check_integrity()


def test_too_many_rows_are_refused_with_the_numbers() -> None:
    pool = RowPool(4)
    pool.allocate(3)
    assert pool.can_allocate(1) and not pool.can_allocate(2)
    with pytest.raises(NoRows, match="2 rows are needed and 1 of 4"):
        pool.allocate(2)
    pool.allocate(1)
    with pytest.raises(NoRows, match="all 4"):
        pool.allocate(1)
    assert pool.allocate_run(1) is None and pool.num_used == 4


@pytest.mark.parametrize("wrong", [(1,), (0, 1), (-1,), (0, -1), (4,), (0, 4)])
def test_our_own_mistakes_are_caught_and_change_nothing(wrong: tuple[int, ...]) -> None:
    pool = RowPool(4)
    pool.allocate(1)
    pool.hold(rows(0))
    for method in (pool.hold, pool.release):
        with pytest.raises(IntegrityError):
            method(rows(*wrong))
    assert pool.counts.tolist() == [2, 0, 0, 0] and pool.num_used == 1
    pool.check_integrity()


@pytest.mark.parametrize(
    "field,value", [("_num_used", 3), ("_counts", np.array([1, 1, 1, -1], np.int32)), ("_flags", bytearray(4))]
)
def test_integrity_finds_what_is_wrong(field: str, value: object) -> None:
    pool = RowPool(4)
    pool.allocate(2)
    setattr(pool, field, value)
    with pytest.raises(IntegrityError):
        pool.check_integrity()


class PoolMachine(RuleBasedStateMachine):
    """Any order of operations against a plain counter."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = RowPool(SIZE)
        self.counts: Counter[int] = Counter()

    def free(self) -> list[int]:
        return [r for r in range(SIZE) if not self.counts[r]]

    def some(self, data: st.DataObject) -> list[int]:
        return data.draw(st.lists(st.sampled_from(sorted(self.counts)), max_size=8))

    @rule(n=st.integers(0, SIZE // 2))
    def allocate(self, n: int) -> None:
        expected = self.free()[:n]
        assert self.pool.can_allocate(n) == (len(expected) == n)
        if len(expected) < n:
            with pytest.raises(NoRows):
                self.pool.allocate(n)
            return
        assert self.pool.allocate(n).tolist() == expected
        self.counts.update(expected)

    @rule(n=st.integers(1, SIZE // 2))
    def allocate_run(self, n: int) -> None:
        free = set(self.free())
        start = next((s for s in range(SIZE - n + 1) if free.issuperset(range(s, s + n))), None)
        run = self.pool.allocate_run(n)
        assert (run is None) == (start is None)
        if run is not None and start is not None:
            assert run.tolist() == list(range(start, start + n))
            self.counts.update(run.tolist())

    @precondition(lambda self: self.counts)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        chosen = self.some(data)
        self.pool.hold(rows(*chosen))
        self.counts.update(chosen)

    @precondition(lambda self: self.counts)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        chosen = self.some(data)
        if any(n > self.counts[r] for r, n in Counter(chosen).items()):
            with pytest.raises(IntegrityError):
                self.pool.release(rows(*chosen))
            return
        freed = self.pool.release(rows(*chosen))
        before = len(self.counts)
        self.counts = +(self.counts - Counter(chosen))
        assert freed == before - len(self.counts)

    @invariant()
    def agrees(self) -> None:
        self.pool.check_integrity()
        assert self.pool.counts.tolist() == [self.counts[r] for r in range(SIZE)]
        self.counts = +self.counts
        assert self.pool.num_used == len(self.counts) == SIZE - self.pool.num_free


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_any_order_of_operations = PoolMachine.TestCase

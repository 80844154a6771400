"""Packed rows and the copies that pack them: everybody's rows survive, wanted ones come below, and nothing is written
over."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axpress.core.kv_cache.row_placement import Moves, clear_below, packed_highs

ROWS = 48


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def test_packed_sequences_lie_above_each_other_and_share_what_they_share() -> None:
    highs, mask = packed_highs([rows(3, 9, 20), rows(3, 9, 21, 22), rows(40)], ROWS)
    assert highs == [3, 5, 6]
    assert np.flatnonzero(mask).tolist() == [3, 9, 20, 21, 22, 40]


def test_a_stretch_is_one_copy_and_rows_weigh_a_little() -> None:
    assert Moves(rows(), rows()).copies == 0
    assert Moves(rows(5, 6, 7), rows(0, 1, 2)).copies == pytest.approx(1 + 3 / 50)
    assert Moves(rows(5, 6, 9), rows(0, 1, 2)).copies == pytest.approx(2 + 3 / 50)


def test_who_lies_below_changes_places_with_whom_is_wanted_there() -> None:
    held, wanted = np.zeros(ROWS, bool), np.zeros(ROWS, bool)
    held[:20] = wanted[16:20] = True
    up, down = clear_below(16, wanted, held, 4, 4)
    assert (len(up.old), len(down.old)) == (8, 4)
    assert (
        set(up.new) <= set(range(20, ROWS)) and set(down.new) <= set(up.old) and down.old.tolist() == [16, 17, 18, 19]
    )


def test_whole_runs_change_places_rather_than_pieces_of_many() -> None:
    held, wanted = np.zeros(ROWS, bool), np.zeros(ROWS, bool)
    held[[0, 2, 4, *range(6, 10), *range(12, 16)]] = True
    held[30:34] = wanted[30:34] = True
    held[[1, 3, 5, 10, 11]] = True
    wanted[[1, 3, 5, 10, 11]] = True
    up, down = clear_below(16, wanted, held, 0, 4)
    assert up.old.tolist() in ([6, 7, 8, 9], [12, 13, 14, 15]) and up.copies + down.copies < 3


@given(
    held=st.lists(st.booleans(), min_size=ROWS, max_size=ROWS),
    chosen=st.lists(st.booleans(), min_size=ROWS, max_size=ROWS),
    limit=st.integers(0, ROWS),
    room=st.integers(0, 10),
    most=st.integers(0, ROWS),
)
def test_moves_lose_nothing_and_go_where_they_may(held, chosen, limit, room, most) -> None:
    occupied, content = np.array(held), np.where(held, np.arange(ROWS), -1)
    wanted = occupied & np.array(chosen)
    before, free_before = wanted[limit:].sum(), ~occupied
    for old, new in clear_below(limit, wanted, occupied.copy(), room, most):
        assert len(set(old.tolist()) | set(new.tolist())) == 2 * len(old)
        assert (content[new] == -1).all() and (content[old] >= 0).all()
        content[new], content[old] = content[old], -1
    assert sorted(content[content >= 0]) == np.flatnonzero(occupied).tolist()
    where = np.flatnonzero(np.isin(content, np.flatnonzero(wanted)))
    after = (where >= limit).sum()
    assert after <= before and before - after <= most
    enough = free_before.sum() >= most + room and limit - wanted[:limit].sum() >= most + room
    if enough:
        assert before - after == min(most, before)
        assert (content[:limit] == -1).sum() >= room

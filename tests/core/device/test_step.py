"""Steps and masks against a plain NumPy statement of the rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axpress.core.device.step import Step

HIDDEN = 0xC780  # bf16 of -65536
PADDING = 0xC700  # of -32768: alone visible in its row, and below what shows anything


def reference_mask(width: int, history: int, queries, views) -> np.ndarray:
    """What the design says: rows of the query's view, its chain of parents, itself; padding sees only itself."""
    mask = np.full((width, history + width), HIDDEN, np.uint16)
    for i in range(width):
        mask[i, history + i] = 0 if i < len(queries) else PADDING
    for i, (parent, view) in enumerate(queries):
        for start, stop in views[view]:
            mask[i, start:stop] = 0
        while parent >= 0:
            mask[i, history + parent] = 0
            parent = queries[parent][0]
    return mask


def test_positions_on_three_axes() -> None:
    step = Step(8)
    step.reset(0)
    step.add_tokens(range(5), 3, [-1] * 5, step.add_view(0, 0))
    assert step.positions().tolist() == [[3, 4, 5, 6, 7]] * 3
    step.place(1, np.array([[9, 9], [9, 10], [11, 12]], np.int32))
    assert step.positions().tolist() == [[3, 9, 9, 6, 7], [3, 9, 10, 6, 7], [3, 11, 12, 6, 7]]
    for first, positions in ((4, np.ones((3, 2), np.int32)), (0, np.ones((2, 2), np.int32)), (-1, step.positions())):
        with pytest.raises(ValueError, match="positions of queries"):
            step.place(first, positions)
    with pytest.raises(ValueError, match="a negative position"):
        step.place(0, -np.ones((3, 1), np.int32))


@st.composite
def steps(draw):
    width = draw(st.integers(1, 24))
    history = draw(st.integers(0, 60))
    runs = st.tuples(st.integers(0, history), st.integers(0, history)).map(lambda r: tuple(sorted(r)))
    views = draw(st.lists(st.lists(runs, min_size=1, max_size=4), min_size=1, max_size=width))
    count = draw(st.integers(1, width))
    queries = [(draw(st.integers(-1, i - 1)), draw(st.integers(0, len(views) - 1))) for i in range(count)]
    return width, history, queries, views


@settings(max_examples=300, deadline=None)
@given(steps())
def test_mask_is_what_the_design_says(case) -> None:
    width, history, queries, views = case
    step = Step(width)
    step.reset(0)
    for first, *others in views:
        step.add_view(*first)
        for run in others:
            step.extend_view(*run)
    for i, (parent, view) in enumerate(queries):
        step.add(7, i, -1, parent, view, False)
    np.testing.assert_array_equal(step.mask(width, history), reference_mask(width, history, queries, views))


def test_chain_numbers_positions_rows_and_logits() -> None:
    step = Step(8)
    step.reset(3, 1)
    step.add_chain([5, 6, 7], 10, 20, step.add_view(0, 10), True)
    got = step.as_array()
    assert got["token"].tolist() == [5, 6, 7]
    assert got["position"].tolist() == [10, 11, 12]
    assert got["row"].tolist() == [20, 21, 22]
    assert got["parent"].tolist() == [-1, 0, 1]
    assert got["logits"].tolist() == [-1, -1, 0]
    assert (step.group, step.bank, step.num_logits) == (3, 1, 1)


@pytest.mark.parametrize(
    "query",
    [(0, -1, 0, -1, 0), (0, 0, -2, -1, 0), (0, 0, 0, 0, 0), (0, 0, 0, -2, 0), (0, 0, 0, -1, 1), (0, 0, 0, -1, -1)],
)
def test_impossible_queries_are_refused(query) -> None:
    step = Step(4)
    step.reset(0)
    step.add_view(0, 2)
    with pytest.raises(ValueError):
        step.add(*query, False)
    assert step.num_queries == 0


def test_a_full_step_and_bad_runs_are_refused() -> None:
    step = Step(1)
    with pytest.raises(ValueError, match="at most 1048576 runs"):
        step.add_view_rows(np.arange(0, 2**21 + 2, 2, dtype=np.int32))  # none beside another
    step.reset(0)
    view = step.add_view(0, 1)
    step.extend_view(2, 3)
    with pytest.raises(ValueError, match="not a run"):
        step.extend_view(5, 4)
    step.add(0, 0, 0, -1, view, True)
    with pytest.raises(ValueError, match="full"):
        step.add(0, 0, 0, -1, view, True)
    with pytest.raises(ValueError, match="does not fit"):
        step.mask(1, 2)  # the view shows row 2

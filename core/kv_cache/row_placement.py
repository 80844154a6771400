"""Where rows should lie, and which copies bring them there. Pure: numbers of rows, never the card.

The card reads a group's whole history, so a pass costs what the highest row costs that anybody in it sees. Packed, the
sequences of a bank lie above each other from row 0 on, in the order given, and what they share counts once."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .row_pool import Rows

Mask = NDArray[np.bool_]

ROWS_PER_COPY = 50  # rows whose bytes take as long as a copy's fixed part: 10 us against 2 KB at 10 GB/s, both assumed


class Moves(NamedTuple):
    """What lies in row `old[i]` goes to `new[i]`, which is free; both int32, ascending."""

    old: Rows
    new: Rows

    @property
    def copies(self) -> float:
        """What they cost, in copies of one row: each stretch is a copy of its own (one of K and one of V in every
        layer)."""
        if not self.old.size:
            return 0.0
        stretches = 1 + np.count_nonzero((np.diff(self.old) != 1) | (np.diff(self.new) != 1))
        return float(stretches) + self.old.size / ROWS_PER_COPY


def packed_highs(rows: Iterable[array | Rows], num_rows: int) -> tuple[list[int], Mask]:
    """1 + the highest row that each of these sequences would see if they were packed in this order; and a mask of all
    their rows."""
    mask = np.zeros(num_rows, np.bool_)
    highs = []
    for own in rows:
        mask[own] = True
        highs.append(int(np.count_nonzero(mask)))
    return highs, mask


def clear_below(limit: int, wanted: Mask, held: Mask, room: int, most: int) -> tuple[Moves, Moves]:
    """Moves that bring up to `most` of the `wanted` rows, the highest first, below row `limit`, and leave `room` rows
    free there.

    First others that lie there go up into free rows, then the wanted ones down. As far as free rows above allow.
    """
    down = np.flatnonzero(wanted[limit:])[-most:] + limit if most else np.empty(0, np.intp)
    holes = np.flatnonzero(~held[:limit])
    others = np.flatnonzero(held[:limit] & ~wanted[:limit])
    above = np.flatnonzero(~held[limit:]) + limit
    count = min(max(len(down) + room - len(holes), 0), len(others), len(above))
    others = _in_long_runs(others, count)
    up = Moves(_rows(others), _rows(_in_long_runs(above, count)))
    holes = _in_long_runs(np.sort(np.concatenate((holes, others))), len(down))
    return up, Moves(_rows(down[len(down) - len(holes) :]), _rows(holes))


def _in_long_runs(rows: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """`count` of these rows, ascending, in as few runs as possible: whole runs, the longest first."""
    if count >= len(rows):
        return rows
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(rows))
    longest = np.argsort(-lengths, kind="stable")
    before = np.cumsum(lengths[longest]) - lengths[longest]
    take = np.empty_like(lengths)
    take[longest] = np.clip(count - before, 0, lengths[longest])
    inside = np.arange(len(rows)) - np.repeat(starts, lengths)
    return rows[inside < np.repeat(take, lengths)]


def _rows(index: NDArray[np.intp]) -> Rows:
    return index.astype(np.int32)

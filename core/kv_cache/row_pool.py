"""Who holds which row of a bank. A token's K and V of every layer live in one row; conversations that share a prefix
share its rows.

Plain bookkeeping for one thread: it never sees the card, and never moves or clears what a row holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import AxpressError

Rows = NDArray[np.int32]


class NoRows(AxpressError):
    """Fewer rows are free than asked for: evict prefixes or preempt a sequence, then ask again."""


class IntegrityError(AssertionError):
    """Our own bookkeeping of rows contradicts itself (a free row released, a count lost): a bug of axpress, never of a
    request."""


class RowPool:
    """Rows 0..num_rows-1 of one bank, each free or held with a counted number of references.

    Low rows are given out first: the card reads a group's whole history, so a pass is cheaper the lower the highest row
    lies that it sees.
    """

    def __init__(self, num_rows: int) -> None:
        if num_rows < 1:
            raise ValueError(f"a bank has at least one row, not {num_rows}")
        self.num_rows = num_rows
        # 1 = held: bytes, because find() on them is the fastest search for a free row or run
        self._flags = bytearray(num_rows)
        self._held = np.frombuffer(self._flags, np.bool_)  # the same bytes
        self._counts = np.zeros(num_rows, np.int32)
        self._count = memoryview(self._counts.data)  # the same numbers: a single one is read faster here
        self._num_used = 0
        self._view = self._counts.view()
        self._view.flags.writeable = False

    @property
    def counts(self) -> Rows:
        """References of each row: int32 [num_rows], a read-only view that follows changes."""
        return self._view

    @property
    def num_used(self) -> int:
        """Rows held by anyone."""
        return self._num_used

    @property
    def num_free(self) -> int:
        """Rows held by nobody."""
        return self.num_rows - self._num_used

    def can_allocate(self, n: int) -> bool:
        """Whether `allocate(n)` would succeed."""
        return n <= self.num_rows - self._num_used

    def allocate(self, n: int) -> Rows:
        """The n lowest free rows, ascending, int32 [n], held once each. NoRows where fewer are free."""
        if n == 1:
            return np.array((self.allocate_row(),), np.int32)
        if not self.can_allocate(n):
            raise NoRows(f"{n} rows are needed and {self.num_free} of {self.num_rows} are free")
        rows = np.flatnonzero(~self._held)[:n].astype(np.int32)
        self._take(rows)
        return rows

    def allocate_row(self, start: int = 0, stop: int | None = None) -> int:
        """The lowest free row from `start` on, below `stop`, or else of all, held once: `allocate(1)` without the
        array. NoRows where none is free."""
        row = self._flags.find(0, start, stop)
        if row < 0:
            row = self._flags.find(0)
        if row < 0:
            raise NoRows(f"1 row is needed and all {self.num_rows} are held")
        self._flags[row] = 1
        self._count[row] = 1
        self._num_used += 1
        return row

    def allocate_run(self, n: int) -> Rows | None:
        """The lowest straight run of n free rows, int32 [n], held once each; None where there is none (see
        `allocate`)."""
        start = self._flags.find(bytes(n))
        if start < 0:
            return None
        rows = np.arange(start, start + n, dtype=np.int32)
        self._take(rows)
        return rows

    def claim(self, rows: Rows) -> None:
        """Exactly these rows, held once each. IntegrityError, nothing changed, where one is held already."""
        index = self._index(rows)
        ordered = np.sort(index)
        if self._held[index].any() or (ordered[1:] == ordered[:-1]).any():
            raise IntegrityError("rows are claimed that are held already, or twice")
        self._take(rows)

    @property
    def held(self) -> NDArray[np.bool_]:
        """Which rows are held: bool [num_rows], a copy."""
        return self._held.copy()

    def hold(self, rows: Rows) -> None:
        """One more reference on each of `rows` (a row named twice gets two). IntegrityError, nothing changed, where one
        is free."""
        if len(rows) == 1:
            return self.hold_row(int(rows[0]))
        index = self._index(rows)
        held = self._held[index]
        if not held.all():
            raise IntegrityError(f"row {rows[held.argmin()]} is held although it is free")
        np.add.at(self._counts, index, np.ones(len(index), np.int32))  # scalars take a path ten times slower

    def hold_row(self, row: int) -> None:
        """`hold` for one row."""
        if not 0 <= row < self.num_rows or not self._count[row]:
            raise IntegrityError(f"row {row} is held although it is free")
        self._count[row] += 1

    def release(self, rows: Rows) -> int:
        """One reference less on each of `rows`; returns how many rows became free. IntegrityError, nothing changed,
        where one is free."""
        if len(rows) == 1:
            return int(self.release_row(int(rows[0])))
        index = self._index(rows)
        ones = np.ones(len(index), np.int32)
        np.subtract.at(self._counts, index, ones)
        left = self._counts[index]
        if left.size and left.min() < 0:
            np.add.at(self._counts, index, ones)
            raise IntegrityError(f"row {rows[left.argmin()]} is released more often than it is held")
        before = self._num_used
        self._held[index[left == 0]] = False
        self._num_used = int(np.count_nonzero(self._held))
        return before - self._num_used

    def release_row(self, row: int) -> bool:
        """`release` for one row: whether it became free."""
        if not 0 <= row < self.num_rows or not self._count[row]:
            raise IntegrityError(f"row {row} is released although it is free")
        self._count[row] -= 1
        if self._count[row]:
            return False
        self._flags[row] = 0
        self._num_used -= 1
        return True

    def check_integrity(self) -> None:
        """Raises IntegrityError where counts, flags and totals disagree. Costs a pass over all rows."""
        if self._counts.min() < 0:
            raise IntegrityError(f"row {self._counts.argmin()} has {self._counts.min()} references")
        wrong = np.flatnonzero((self._counts > 0) != (np.frombuffer(self._flags, np.uint8) == 1))
        if wrong.size:
            raise IntegrityError(
                f"row {wrong[0]} has {self._counts[wrong[0]]} references and its flag says {self._flags[wrong[0]]}"
            )
        if self._num_used != np.count_nonzero(self._counts):
            raise IntegrityError(f"{np.count_nonzero(self._counts)} rows are held, {self._num_used} were counted")

    def _take(self, rows: Rows) -> None:
        index = rows.astype(np.intp)
        self._held[index] = True
        self._counts[index] = 1
        self._num_used += len(rows)

    def _index(self, rows: Rows) -> NDArray[np.intp]:
        """`rows` in the type that NumPy indexes with fastest. IntegrityError where one is no row: -1 would be taken for
        the last."""
        index = rows.astype(np.intp)
        if index.size and (index.min() < 0 or index.max() >= self.num_rows):
            raise IntegrityError(f"rows {index.min()}..{index.max()} are named; the bank has 0..{self.num_rows - 1}")
        return index

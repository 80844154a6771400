"""The one struct that crosses from plan to program: which tokens a pass carries, what each sees, where each is stored.

Plain host memory, no card: a planner fills it, tests read it, the program runs it."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUERY_DTYPE: np.dtype[Any]

class Step:
    """One masked pass. Reused from pass to pass: `reset`, add views and queries, run.

    A *view* is a list of runs of cache rows, each (start, stop), that its queries see. A *query* is one token: its
    position (what RoPE uses; on three axes it is time, see `place`), the row that receives its K and V (-1: none), the
    earlier query of this step that it continues (`parent`, -1: none; it sees its parent's own chain, too), its view,
    and whether its logits are wanted. `group` is the index of the shape group in the program's list, `bank` the cache;
    `images` the rows of its tokens with negative ids, which are pictures' (None: it has none). A *part* says whose
    state some of the queries continue, where the model has recurrent layers.
    """

    capacity: int
    num_queries: int
    num_views: int
    num_logits: int
    num_parts: int
    group: int
    bank: int
    images: Any
    def __new__(cls, capacity: int = 128) -> Step: ...
    def reset(self, group: int, bank: int = 0) -> None:
        """Empties the step for a pass of `group` on `bank`."""
    def add_view(self, start: int, stop: int) -> int:
        """Begins a view with the run [start, stop) (empty is allowed) and returns its number."""
    def extend_view(self, start: int, stop: int) -> int:
        """Adds the run [start, stop) of cache rows to the view begun last."""
    def add_view_rows(self, rows: Any) -> int:
        """Begins a view of exactly these cache rows (int32, in any order) and returns its number."""
    def add(self, token: int, position: int, row: int, parent: int, view: int, logits: bool) -> int:
        """Adds one query and returns its index. ValueError when the step is full or the numbers are out of range."""
    def add_chain(self, tokens: Sequence[int], position: int, row: int, view: int, logits: bool = False) -> None:
        """Adds consecutive tokens of one sequence from `position` and `row` (-1: no rows) on, each continuing the last.

        `logits`: the last one's logits are wanted."""
    def add_tokens(
        self, tokens: Iterable[int], position: int, rows: Iterable[int], view: int, logits_at: int = -1
    ) -> int:
        """Like `add_chain` with `rows[i]` for token i, wherever that is; returns the index of the first query.

        `logits_at`: which token's logits are wanted (-1: none's)."""
    def add_part(self, first: int, count: int, source: int, target: int) -> None:
        """For models with recurrent layers: `count` queries from `first` on continue the state in slot `source`, and
        leave theirs in `target`. Parts lie side by side and cover all queries; a later one may continue the state that
        an earlier one left. ValueError: they do not."""
    def place(self, first: int, positions: NDArray[np.int32]) -> None:
        """Positions on three axes, int32 [3, n] (time, height, width), of the n queries from `first` on, in place of
        those that they were added with. ValueError: they are not there, or negative."""
    def positions(self) -> NDArray[np.int32]:
        """A copy of the queries' positions, int32 [3, queries]: time, height, width."""
    def as_array(self) -> NDArray[Any]:
        """A copy of the queries, dtype QUERY_DTYPE, for tests and traces."""
    def window_mask(self, width: int, history: int, positions: NDArray[np.int32], window: int) -> NDArray[np.uint16]:
        """As `mask`, for layers that see only what is less than `window` positions back. `positions` int32, at least
        [history]: of the tokens in the cache's rows."""
    def mask(self, width: int, history: int) -> NDArray[np.uint16]:
        """The additive mask of this step as bf16 bits, uint16 [width, history + width]. ValueError: it does not fit."""

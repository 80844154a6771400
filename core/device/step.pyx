"""The one struct that crosses from plan to program: which tokens a pass carries, what each sees, where each is stored.

Plain host memory, no card: a planner fills it, tests read it, the program runs it.
"""

from libc.stdlib cimport free, malloc, realloc

import numpy as np

cdef enum:
    MAX_RUNS = 1 << 20

QUERY_DTYPE = np.dtype([(n, np.int32) for n in ("token", "position", "row", "parent", "view", "logits")])


cdef class Step:
    """One masked pass. Reused from pass to pass: `reset`, add views and queries, run.

    A *view* is a list of runs of cache rows, each (start, stop), that its queries see. A *query* is one token: its
    position (what RoPE uses; on three axes it is time, see `place`), the row that receives its K and V (-1: none), the
    earlier query of this step that it continues (`parent`, -1: none; it sees its parent's own chain, too), its view,
    and whether its logits are wanted. `group` is the index of the shape group in the program's list, `bank` the cache;
    `images` the rows of its tokens with negative ids, which are pictures' (None: it has none). A *part* says whose
    state some of the queries continue, where the model has recurrent layers.
    """

    def __cinit__(self, int capacity=128):
        self.capacity = capacity
        self.queries = <ax_query *>malloc(capacity * sizeof(ax_query))
        self.room = 1024
        self.runs = <int32_t *>malloc(2 * self.room * sizeof(int32_t))
        self.views = <int32_t *>malloc((capacity + 1) * sizeof(int32_t))
        self.parts = <state_part *>malloc(capacity * sizeof(state_part))
        self.axes = <int32_t *>malloc(2 * capacity * sizeof(int32_t))
        if (self.queries == NULL or self.runs == NULL or self.views == NULL or self.parts == NULL
                or self.axes == NULL):
            raise MemoryError
        self.reset(0)

    def __dealloc__(self):
        free(self.queries)
        free(self.runs)
        free(self.views)
        free(self.parts)
        free(self.axes)

    def reset(self, int group, int bank=0) -> None:
        """Empties the step for a pass of `group` on `bank`."""
        self.group = group
        self.bank = bank
        self.images = None
        self.num_queries = self.num_views = self.num_logits = self.num_parts = 0
        self.views[0] = 0

    cpdef int add_view(self, int start, int stop) except -1:
        """Begins a view with the run [start, stop) (empty is allowed) and returns its number."""
        if self.num_views >= self.capacity:
            raise ValueError(f"a step of {self.capacity} queries has no use for more than {self.capacity} views")
        self.num_views += 1
        self.views[self.num_views] = self.views[self.num_views - 1]
        self.extend_view(start, stop)
        return self.num_views - 1

    cpdef int extend_view(self, int start, int stop) except -1:
        """Adds the run [start, stop) of cache rows to the view begun last."""
        if self.num_views == 0:
            raise ValueError("no view to extend: add_view begins one")
        if not 0 <= start <= stop:
            raise ValueError(f"not a run of cache rows: {start}..{stop}")
        return self._add_run(start, stop) if start < stop else 0

    cdef int _add_run(self, int start, int stop) except -1:
        cdef int at = self.views[self.num_views]
        cdef int32_t *grown
        if at >= MAX_RUNS:
            raise ValueError(f"a step holds at most {MAX_RUNS} runs of rows")
        if at >= self.room:
            grown = <int32_t *>realloc(self.runs, 4 * self.room * sizeof(int32_t))
            if grown == NULL:
                raise MemoryError
            self.runs = grown
            self.room *= 2
        self.runs[2 * at] = start
        self.runs[2 * at + 1] = stop
        self.views[self.num_views] = at + 1
        return 0

    cpdef int add_view_rows(self, const int32_t[::1] rows) except -1:
        """Begins a view of exactly these cache rows (int32, in any order) and returns its number."""
        cdef Py_ssize_t i = 0, first, count = rows.shape[0]
        cdef int view = self.add_view(0, 0)
        while i < count:
            first = i
            i += 1
            while i < count and rows[i] == rows[i - 1] + 1:
                i += 1
            if rows[first] < 0:
                raise ValueError(f"not a cache row: {rows[first]}")
            self._add_run(rows[first], rows[i - 1] + 1)
        return view

    cpdef int add(self, int token, int position, int row, int parent, int view, bint logits) except -1:
        """Adds one query and returns its index. ValueError when the step is full or the numbers are out of range."""
        cdef int i = self.num_queries
        if i >= self.capacity:
            raise ValueError(f"the step is full: {self.capacity} queries")
        if position < 0 or row < -1 or not -1 <= parent < i or not 0 <= view < self.num_views:
            raise ValueError(
                f"query {i}: position {position}, row {row}, parent {parent}, view {view} of {self.num_views}")
        self.queries[i].token = token
        self.queries[i].position = self.axes[2 * i] = self.axes[2 * i + 1] = position
        self.queries[i].row = row
        self.queries[i].parent = parent
        self.queries[i].view = view
        self.queries[i].logits = -1
        if logits:
            self.queries[i].logits = self.num_logits
            self.num_logits += 1
        self.num_queries = i + 1
        return i

    def place(self, int first, const int32_t[:, ::1] positions) -> None:
        """Positions on three axes, int32 [3, n] (time, height, width), of the n queries from `first` on, in place of
        those that they were added with. ValueError: they are not there, or negative."""
        cdef Py_ssize_t i, count = positions.shape[1]
        if positions.shape[0] != 3 or first < 0 or first + count > self.num_queries:
            raise ValueError(f"positions of queries {first} to {first + count}, there are {self.num_queries}")
        for i in range(count):
            if positions[0, i] < 0 or positions[1, i] < 0 or positions[2, i] < 0:
                raise ValueError(f"query {first + i}: a negative position")
            self.queries[first + i].position = positions[0, i]
            self.axes[2 * (first + i)], self.axes[2 * (first + i) + 1] = positions[1, i], positions[2, i]

    def add_chain(self, tokens, int position, int row, int view, bint logits=False) -> None:
        """Adds consecutive tokens of one sequence from `position` and `row` (-1: no rows) on, each continuing the last.

        `logits`: the last one's logits are wanted.
        """
        cdef int parent = -1, i = 0, last = len(tokens) - 1
        for token in tokens:
            parent = self.add(token, position + i, row + i if row >= 0 else row, parent, view, logits and i == last)
            i += 1

    def add_tokens(self, tokens, int position, rows, int view, int logits_at=-1) -> int:
        """Like `add_chain` with `rows[i]` for token i, wherever that is; returns the index of the first query.

        `logits_at`: which token's logits are wanted (-1: none's).
        """
        cdef int parent = -1, i = 0, first = self.num_queries
        for token, row in zip(tokens, rows, strict=True):
            parent = self.add(token, position + i, row, parent, view, i == logits_at)
            i += 1
        return first

    def add_part(self, int first, int count, int source, int target) -> None:
        """For models with recurrent layers: `count` queries from `first` on continue the state in slot `source`, and
        leave theirs in `target`. Parts lie side by side and cover all queries; a later one may continue the state that
        an earlier one left. ValueError: they do not."""
        cdef int end = 0
        if self.num_parts:
            end = self.parts[self.num_parts - 1].first + self.parts[self.num_parts - 1].count
        if first != end or count < 1 or first + count > self.capacity or source < 0 or target < 1 or source == target:
            raise ValueError(
                f"queries {first} to {first + count} after {end}, from state {source} to {target}: not a part")
        self.parts[self.num_parts] = state_part(first, count, source, target)
        self.num_parts += 1

    def as_array(self):
        """A copy of the queries, dtype QUERY_DTYPE, for tests and traces."""
        out = np.empty(self.num_queries, QUERY_DTYPE)
        cdef int i
        for i in range(self.num_queries):
            q = self.queries[i]
            out[i] = (q.token, q.position, q.row, q.parent, q.view, q.logits)
        return out

    def positions(self):
        """A copy of the queries' positions, int32 [3, queries]: time, height, width."""
        cdef int i
        out = np.empty((3, self.num_queries), np.int32)
        for i in range(self.num_queries):
            out[:, i] = self.queries[i].position, self.axes[2 * i], self.axes[2 * i + 1]
        return out

    def mask(self, int width, int history):
        """The additive mask of this step as bf16 bits, uint16 [width, history + width]. ValueError: it does not fit."""
        out = np.empty((width, history + width), np.uint16)
        cdef uint16_t[:, ::1] view = out
        if ax_mask_fill(&view[0, 0], width, history, self.queries, self.num_queries,
                        self.runs, self.views, self.num_views) != 0:
            raise ValueError(f"the step does not fit a group {width} wide over {history} rows")
        return out

    def window_mask(self, int width, int history, const int32_t[::1] positions, int window):
        """As `mask`, for layers that see only what is less than `window` positions back. `positions` int32, at least
        [history]: of the tokens in the cache's rows."""
        mask = self.mask(width, history)
        out = np.empty_like(mask)
        cdef uint16_t[:, ::1] view = out, whole = mask
        if positions.shape[0] < history:
            raise ValueError(f"positions of {positions.shape[0]} rows, the group reads {history}")
        ax_mask_window(&view[0, 0], &whole[0, 0], width, history, self.queries, self.num_queries,
                       &positions[0] if positions.shape[0] else NULL, window)
        return out

"""The one struct that crosses from plan to program: which tokens a pass carries, what each sees, where each is stored.

Plain host memory, no card: a planner fills it, tests read it, the program runs it.
"""

from libc.stdlib cimport free, malloc

import numpy as np

QUERY_DTYPE = np.dtype([(n, np.int32) for n in ("token", "position", "row", "parent", "view", "logits")])


cdef class Step:
    """One masked pass. Reused from pass to pass: `reset`, add views and queries, run.

    A *view* is a list of runs of cache rows, each (start, stop), that its queries see. A *query* is one token: its position
    (what RoPE uses), the row that receives its K and V (-1: none), the earlier query of this step that it continues
    (`parent`, -1: none; it sees its parent's own chain, too), its view, and whether its logits are wanted.
    `group` is the index of the shape group in the program's list, `bank` the cache. `tail_free` says that the rows from the
    first query's row on, as many as the group is wide, are free: the card may then write a whole chunk in place.
    """

    def __cinit__(self, int capacity=128, int max_runs=4096):
        self.capacity = capacity
        self.max_runs = max_runs
        self.queries = <ax_query *>malloc(capacity * sizeof(ax_query))
        self.runs = <int32_t *>malloc(2 * max_runs * sizeof(int32_t))
        self.views = <int32_t *>malloc((capacity + 1) * sizeof(int32_t))
        if self.queries == NULL or self.runs == NULL or self.views == NULL:
            raise MemoryError
        self.reset(0)

    def __dealloc__(self):
        free(self.queries)
        free(self.runs)
        free(self.views)

    def reset(self, int group, int bank=0) -> None:
        """Empties the step for a pass of `group` on `bank`."""
        self.group = group
        self.bank = bank
        self.num_queries = self.num_views = self.num_logits = 0
        self.tail_free = False
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
        cdef int at = self.views[self.num_views]
        if not 0 <= start <= stop:
            raise ValueError(f"not a run of cache rows: {start}..{stop}")
        if start == stop:
            return 0
        if at >= self.max_runs:
            raise ValueError(f"a step holds at most {self.max_runs} runs of rows")
        self.runs[2 * at] = start
        self.runs[2 * at + 1] = stop
        self.views[self.num_views] = at + 1
        return 0

    cpdef int add(self, int token, int position, int row, int parent, int view, bint logits) except -1:
        """Adds one query and returns its index. ValueError when the step is full or the numbers are out of range."""
        cdef int i = self.num_queries
        if i >= self.capacity:
            raise ValueError(f"the step is full: {self.capacity} queries")
        if position < 0 or row < -1 or not -1 <= parent < i or not 0 <= view < self.num_views:
            raise ValueError(f"query {i}: position {position}, row {row}, parent {parent}, view {view} of {self.num_views}")
        self.queries[i].token = token
        self.queries[i].position = position
        self.queries[i].row = row
        self.queries[i].parent = parent
        self.queries[i].view = view
        self.queries[i].logits = -1
        if logits:
            self.queries[i].logits = self.num_logits
            self.num_logits += 1
        self.num_queries = i + 1
        return i

    def add_chain(self, tokens, int position, int row, int view, bint logits=False) -> None:
        """Adds consecutive tokens of one sequence from `position` and `row` on, each continuing the one before it.

        `logits`: the last one's logits are wanted.
        """
        cdef int parent = -1, i = 0, last = len(tokens) - 1
        for token in tokens:
            parent = self.add(token, position + i, row + i, parent, view, logits and i == last)
            i += 1

    def as_array(self):
        """A copy of the queries, dtype QUERY_DTYPE, for tests and traces."""
        out = np.empty(self.num_queries, QUERY_DTYPE)
        cdef int i
        for i in range(self.num_queries):
            q = self.queries[i]
            out[i] = (q.token, q.position, q.row, q.parent, q.view, q.logits)
        return out

    def mask(self, int width, int history):
        """The additive mask of this step as bf16 bits, uint16 [width, history + width]. ValueError when it does not fit."""
        out = np.empty((width, history + width), np.uint16)
        cdef uint16_t[:, ::1] view = out
        if ax_mask_fill(&view[0, 0], width, history, self.queries, self.num_queries, self.runs, self.views, self.num_views) != 0:
            raise ValueError(f"the step does not fit a group {width} wide over {history} rows")
        return out

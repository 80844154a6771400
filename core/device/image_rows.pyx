"""What a pass takes of pictures: rows in place of embeddings, and what is added to the hidden state after the first
layers.

A token of a picture has a negative id. Its row is what the model's vision encoder gave, rounded to bf16. Encoders of
the deepstack kind (Qwen3-VL) give more: `added[l]` is added to the output of layer l at the picture's tokens before
layer l + 1 runs, in fp32, and rounded to bf16, by this machine, as the vendor's runner does it."""

from libc.string cimport memcpy

from .step cimport Step

import numpy as np


cdef class ImageRows:
    """Of queries `queries` (int32 [n], ascending) of a step: `rows` uint16 [n, H] bf16 bits, `added` float32
    [layers, n, H]. Only read."""

    def __init__(self, queries, rows, added):
        """ValueError: they do not belong together."""
        self.queries, self.rows, self.added = queries, rows, added
        count = len(queries)
        if rows.shape[0] != count or added.shape[1:] != rows.shape:
            raise ValueError(f"{count} queries, rows {rows.shape}, added {added.shape}")

    cdef int fill(self, uint16_t *hidden, int width, int num_queries) except -1:
        """Puts the rows into the embeddings of a step."""
        cdef Py_ssize_t i
        if self.rows.shape[1] != width:
            raise ValueError(f"rows of pictures have {self.rows.shape[1]} values, the layers take {width}")
        for i in range(self.queries.shape[0]):
            if not 0 <= self.queries[i] < num_queries:
                raise ValueError(f"a picture's row for query {self.queries[i]} of {num_queries}")
            memcpy(hidden + self.queries[i] * width, &self.rows[i, 0], 2 * width)
        return 0

    cdef bint adds(self, int layer) noexcept nogil:
        """Whether something is to be added to the output of this layer of the model."""
        return layer < self.added.shape[0]

    cdef void add(self, int layer, uint16_t *hidden) noexcept nogil:
        """Adds it to the hidden state [queries of the step, H] bf16, which `fill` has looked at before."""
        ax_add_rows(hidden, self.rows.shape[1], &self.queries[0], &self.added[layer, 0, 0], self.queries.shape[0])


def check_rows(Step step) -> None:
    """ValueError: a token of the step is a picture's, and the step has no row for it."""
    cdef ImageRows images = step.images
    cdef int i
    wanted = [i for i in range(step.num_queries) if step.queries[i].token < 0]
    given = [] if images is None else np.asarray(images.queries).tolist()
    if wanted != given:
        raise ValueError(f"queries {wanted} are tokens of pictures, the step has rows for {given}")

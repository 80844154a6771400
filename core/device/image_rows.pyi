"""What a pass takes of pictures: rows in place of embeddings, and what is added to the hidden state after the first
layers.

A token of a picture has a negative id. Its row is what the model's vision encoder gave, rounded to bf16. Encoders of
the deepstack kind (Qwen3-VL) give more: `added[l]` is added to the output of layer l at the picture's tokens before
layer l + 1 runs, in fp32, and rounded to bf16, by this machine, as the vendor's runner does it."""

import numpy as np
from numpy.typing import NDArray

from .step import Step

class ImageRows:
    """Of queries `queries` (int32 [n], ascending) of a step: `rows` uint16 [n, H] bf16 bits, `added` float32
    [layers, n, H]. Only read."""

    def __init__(self, queries: NDArray[np.int32], rows: NDArray[np.uint16], added: NDArray[np.float32]) -> None:
        """ValueError: they do not belong together."""

def check_rows(step: Step) -> None:
    """ValueError: a token of the step is a picture's, and the step has no row for it."""

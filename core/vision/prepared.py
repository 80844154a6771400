"""What a vision encoder takes, and a picture as it takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import PackageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Detail = Literal["auto", "low", "high"]
"""How closely a picture is looked at, where the family has a choice."""


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """The input of a vision encoder: shape (all but a leading 1 counts) and dtype, uint8 or float32. `num_tokens`: rows
    of its output, a token each; None: as the family has it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    num_tokens: int | None = None

    @classmethod
    def of(cls, shape: Sequence[int], num_bytes: int, num_tokens: int | None = None) -> EncoderInput:
        """Of a tensor of the card's, which tells shape and bytes. PackageError: neither bytes nor float32 values."""
        sizes = tuple(shape[1:] if len(shape) > 1 and shape[0] == 1 else shape)
        types: dict[int, np.dtype] = {prod(sizes): np.dtype(np.uint8), 4 * prod(sizes): np.dtype(np.float32)}
        if num_bytes not in types:
            text = f"the vision encoder's input {list(shape)} has {num_bytes} bytes, neither uint8 nor float32 values"
            raise PackageError(f"{text}: a form that is not known here")
        return cls(sizes, types[num_bytes], num_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """One run of the vision encoder: its input, and the tokens that its output takes in the prompt, `grid` rows and
    columns of them. `before` and `after`: what the prompt says around them; control tokens are spelled there. A picture
    is one of these, or several in their order. `digest`: 16 bytes, of the pixels and of how they were made."""

    pixels: NDArray[np.generic]
    grid: tuple[int, int]
    num_tokens: int
    digest: bytes
    before: str = ""
    after: str = ""


def prepared_image(
    pixels: NDArray[np.generic], grid: tuple[int, int], settings: str, before: str = "", after: str = ""
) -> PreparedImage:
    """`settings`: the family, and whatever else tells what the encoder makes of equal pixels."""
    pixels = np.ascontiguousarray(pixels)
    pixels.flags.writeable = False
    digest = blake2b(f"{settings} {pixels.dtype} {pixels.shape}".encode(), digest_size=16)
    digest.update(pixels.data)
    return PreparedImage(pixels, grid, grid[0] * grid[1], digest.digest(), before, after)

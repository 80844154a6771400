"""Positions of patches, folded for the one size of a simulated encoder: learned tables resampled as transformers does,
in the order in which the encoder's tokens are; and the frequencies of RoPE over rows and columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .vision_axmodel import VisionMeta

Floats = npt.NDArray[np.float32]


def by_squares(table: Floats, meta: VisionMeta) -> Floats:
    """Rows of patches, one after the other, as the encoder has them: squares of merge x merge patches."""
    rows, cols, merge = meta.image_rows, meta.image_cols, meta.merge
    squares = table.reshape(rows // merge, merge, cols // merge, merge, -1).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(squares.reshape(rows * cols, -1), np.float32)


def stretched(table: Floats, side: int, meta: VisionMeta) -> Floats:
    """A square table [side * side, hidden] stretched to the picture's patches, corners on corners, bilinear."""
    grid = table.reshape(side, side, -1)
    low_row, high_row, row = _between(meta.image_rows, side)
    low_col, high_col, col = _between(meta.image_cols, side)
    row, col = row[:, None, None], col[None, :, None]
    top = grid[low_row][:, low_col] * (1 - col) + grid[low_row][:, high_col] * col
    bottom = grid[high_row][:, low_col] * (1 - col) + grid[high_row][:, high_col] * col
    return by_squares((top * (1 - row) + bottom * row).reshape(-1, table.shape[1]), meta)


def _between(count: int, side: int) -> tuple[np.ndarray, np.ndarray, Floats]:
    """Of `count` places, the entries of a table on either side and how far it is from the first."""
    at = np.arange(count, dtype=np.float32) * np.float32(side - 1) / np.float32(max(count - 1, 1))
    low = np.floor(at)
    return low.astype(int), np.minimum(low.astype(int) + 1, side - 1), (at - low).astype(np.float32)


def nearest(table: Floats, side: int, meta: VisionMeta) -> Floats:
    """A square table's entry below each place, found in float32 as SmolVLM's code does: rounding may pick another."""
    picks = [_buckets(count, side) for count in (meta.image_rows, meta.image_cols)]
    grid = table.reshape(side, side, -1)[np.ix_(*picks)]
    return by_squares(grid.reshape(-1, table.shape[1]), meta)


def _buckets(count: int, side: int) -> np.ndarray:
    step = 1 / side
    edges = np.array([step + step * i for i in range(int(np.ceil((1.0 - step) / step)))], np.float32)
    places = np.arange(count, dtype=np.float32) * (np.float32(1.0) / np.float32(count))
    return np.searchsorted(edges, np.minimum(places, np.float32(1.0 - 1e-6)), side="right")


def frequencies(head_dim: int, vision: Mapping[str, Any]) -> Floats:
    """RoPE's frequencies of one axis, float32 [head_dim / 4]."""
    theta = float((vision.get("rope_parameters") or {}).get("rope_theta", 10000.0))
    half = head_dim // 2
    exponents = np.arange(0, half, 2, dtype=np.float32) / np.float32(half)
    return (np.float32(1.0) / np.power(np.float32(theta), exponents)).astype(np.float32)

"""Weights as published packages have them: int8 with a scale for each row (output channel), activations in bf16."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np

from .safetensors import NUMPY_DTYPES, TensorSource, from_bf16

MATRICES = ("q", "k", "v", "o", "gate", "up", "down", "head", "q_gate", "qkv", "z")
LARGEST = 127  # of an int8 weight, in both directions
ROWS = 1024  # of a matrix that are in float32 at a time


def int8_tensors(tensors: Mapping[str, TensorSource]) -> dict[str, TensorSource]:
    """The tensors of a layer or a head with its matrices as int8 (I8, and NAME_scale: F32, one a row); all others as
    they are. A weight is off by half a scale at most: 1/254 of the largest in its row."""
    result: dict[str, TensorSource] = {}
    for name, source in tensors.items():
        if name in MATRICES:
            result[f"{name}_scale"], result[name] = _quantised(source)
        else:
            result[name] = source
    return result


def _quantised(source: TensorSource) -> tuple[TensorSource, TensorSource]:
    rows, _ = source.shape

    def parts() -> Iterator[np.ndarray]:
        """float32 [up to ROWS, columns]"""
        whole = np.concatenate([block.reshape(-1) for block in source.blocks()]).reshape(source.shape)
        for first in range(0, rows, ROWS):
            part = whole[first : first + ROWS]
            yield from_bf16(part) if source.dtype == "BF16" else part.astype(np.float32)

    @cache
    def scales() -> np.ndarray:
        largest = np.concatenate([np.abs(part).max(axis=1) for part in parts()])
        return np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1)).astype(NUMPY_DTYPES["F32"])

    def weights() -> Iterator[np.ndarray]:
        for number, part in enumerate(parts()):
            scale = scales()[number * ROWS : number * ROWS + len(part), None]
            yield np.clip(np.rint(part / scale), -LARGEST, LARGEST).astype(np.int8)

    return TensorSource("F32", (rows,), lambda: [scales()]), TensorSource("I8", source.shape, weights)

"""The vision tower of a checkpoint: its tensors, checked, as those of a simulated encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import PackageError
from .safetensors import TensorSource, bf16_source, from_bf16
from .vision_axmodel import VisionMeta

Arrays = Callable[[str], np.ndarray]
NONE: Mapping[str, str] = MappingProxyType({})


class Tower:
    """The vision tower of a checkpoint. `array` gives a tensor by its name, `shape` its shape; both raise PackageError
    where there is none. `names`: those that there are; `used` collects those taken."""

    def __init__(
        self,
        meta: VisionMeta,
        config: Mapping[str, Any],
        where: str,
        names: Sequence[str],
        array: Callable[[str], np.ndarray],
    ) -> None:
        self.meta, self.config, self.where = meta, config, where
        self.names, self.array = frozenset(names), array
        self.used: set[str] = set()

    def take(self, name: str, *shape: int) -> np.ndarray:
        """A tensor of this shape (as many elements, where the checkpoint has axes of one beside them)."""
        self.used.add(name)
        array = self.array(name)
        if tuple(size for size in array.shape if size != 1) != tuple(size for size in shape if size != 1):
            text = f"its configuration asks for {list(shape)}"
            raise PackageError(f"{self.where}: tensor {name!r} has shape {list(array.shape)}, {text}")
        return array.reshape(shape)

    def one(self, name: str, *shape: int) -> TensorSource:
        """The same as bf16."""
        return bf16_source(self.take(name, *shape))

    def rows(self, names: Sequence[str], rows: int, cols: int, part: tuple[int, int] = (0, 1)) -> TensorSource:
        """Matrices (or, with one row, vectors) below each other; of each the part number `part[0]` of `part[1]`."""
        number, parts = part
        shape = (parts * cols,) if rows == 1 else (parts * rows, cols)
        whole = [self.take(name, *shape).reshape(parts * rows, cols) for name in names]
        arrays = [array[number * rows : (number + 1) * rows] for array in whole]

        def blocks() -> Iterator[np.ndarray]:
            for array in arrays:
                yield from bf16_source(np.ascontiguousarray(array)).blocks()

        return TensorSource("BF16", (len(names) * rows, cols), blocks)

    def patches(self, name: str) -> TensorSource:
        """The matrix of a convolution over patches, its columns by frame, row, column and channel."""
        meta = self.meta
        side = meta.patch_size
        weight = self.take(name, meta.hidden, 3, meta.frames, side, side)
        columns = weight.transpose(0, 2, 3, 4, 1).reshape(meta.hidden, -1)
        return bf16_source(np.ascontiguousarray(columns))

    def floats(self, name: str, *shape: int) -> np.ndarray:
        """A tensor as float32."""
        array = self.take(name, *shape)
        return from_bf16(array) if array.dtype == np.uint16 else array.astype(np.float32)

    def blocks(self, prefix: str, names: Mapping[str, str], fused: Mapping[str, str] = NONE) -> dict[str, TensorSource]:
        """Tensors of all blocks, ours: theirs below `prefix` (with {} for the block's number), those that are there.
        `fused`: of tensors that hold queries, keys and values below each other."""
        meta, width = self.meta, self.meta.heads * self.meta.head_dim
        shapes = {"q": (width, meta.hidden), "o": (meta.hidden, width), "down": (meta.hidden, meta.ffn)}
        shapes |= dict.fromkeys(("k", "v"), shapes["q"]) | dict.fromkeys(("gate", "up"), (meta.ffn, meta.hidden))
        wide = {"q_bias": width, "k_bias": width, "v_bias": width, "gate_bias": meta.ffn, "up_bias": meta.ffn}
        result = {}
        for ours, theirs in names.items():
            numbered = [prefix.format(block) + theirs for block in range(meta.layers)]
            if ours.endswith(("_bias", "_scale")) and numbered[:1] and numbered[0] not in self.names:
                continue
            result[ours] = self.rows(numbered, *shapes.get(ours, (1, wide.get(ours, meta.hidden))))
        for ours, theirs in fused.items():
            numbered = [prefix.format(block) + theirs for block in range(meta.layers)]
            bias = "_bias" if ours == "bias" else ""
            for number, name in enumerate("qkv"):
                size = (1, width) if bias else shapes[name]
                result[name + bias] = self.rows(numbered, *size, (number, 3))
        return result

    def merger(self, prefixes: Sequence[str], first: str, second: str) -> dict[str, TensorSource]:
        """The two matrices of each merger, below each other, and their biases."""
        meta = self.meta
        group, mid, out = meta.hidden * meta.merge**2, meta.merger_hidden, meta.out_hidden
        return {
            "merge_in": self.rows([f"{name}{first}.weight" for name in prefixes], mid, group),
            "merge_in_bias": self.rows([f"{name}{first}.bias" for name in prefixes], 1, mid),
            "merge_out": self.rows([f"{name}{second}.weight" for name in prefixes], out, mid),
            "merge_out_bias": self.rows([f"{name}{second}.bias" for name in prefixes], 1, out),
        }

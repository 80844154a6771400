"""Shape groups: what a layer and a head accept, read from their shapes and never assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..errors import PackageError

LAYER_INPUTS = ("K_cache", "V_cache", "indices", "input", "mask")
LAYER_OUTPUTS = ("K_cache_out", "V_cache_out", "output")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output: its name, runtime data type, and shape and bytes for each shape group."""

    name: str
    dtype: int
    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A layer's shape group: `width` tokens a pass, over the first `history` rows of the cache.

    Width 1 is decode; `history` is then the whole cache R (and the card reads all of it, whatever the mask shows).
    """

    index: int
    width: int
    history: int

    @property
    def mask_bytes(self) -> int:
        """Bytes of a pass's mask: bf16 [width, history + width]."""
        return 2 * self.width * (self.history + self.width)


@dataclass(frozen=True, slots=True)
class LayerShape:
    """A layer's geometry: decode groups by growing cache, chunk groups by growing history."""

    hidden: int
    kv_dim: int
    decode: tuple[Group, ...]
    chunks: tuple[Group, ...]

    @property
    def rows(self) -> int:
        """Rows of a bank: the largest cache that any decode group reads."""
        return self.decode[-1].history


def find_tensor(tensors: list[TensorInfo], name: str, where: str) -> int:
    """Index of `name`, also where a build suffixed it per group (`K_cache_1`). PackageError names what is there."""
    exact = [i for i, t in enumerate(tensors) if t.name == name]
    suffixed = [
        i for i, t in enumerate(tensors) if t.name.rpartition("_")[0] == name and t.name.rpartition("_")[2].isdigit()
    ]
    if exact or suffixed:
        return (exact or suffixed)[0]
    raise PackageError(
        f"{where}: no tensor named {name!r} (it has {', '.join(t.name for t in tensors)}); axpress serves transformer"
        f" layers with inputs {', '.join(LAYER_INPUTS)}"
    )


def layer_shape(inputs: list[TensorInfo], outputs: list[TensorInfo], where: str) -> LayerShape:
    """Reads groups from a layer's IO. PackageError where the shapes contradict each other or are of another kind of
    model."""
    k, indices, x, mask = (inputs[find_tensor(inputs, n, where)] for n in ("K_cache", "indices", "input", "mask"))
    for name in LAYER_OUTPUTS:
        find_tensor(outputs, name, where)
    decode: list[Group] = []
    chunks: list[Group] = []
    hidden, kv_dim = x.shapes[0][-1], k.shapes[0][-1]
    for g in range(len(x.shapes)):
        if len(indices.shapes[g]) > 1 and indices.shapes[g][0] != 1:
            raise PackageError(
                f"{where}: indices of shape {indices.shapes[g]} in group {g}: multimodal positions are not"
                " supported yet"
            )
        width, seen = indices.shapes[g][-1], mask.shapes[g][-1]
        history = seen - width
        if (
            history < 0
            or max(history, 1) != k.shapes[g][-2]
            or k.shapes[g][-1] != kv_dim
            or x.shapes[g][-2:] != (width, hidden)
        ):
            raise PackageError(
                f"{where}: shape group {g} is not a transformer layer's (indices {indices.shapes[g]}, mask"
                f" {mask.shapes[g]}, K_cache {k.shapes[g]}, input {x.shapes[g]}); hybrid and sliding-window models are"
                " not supported yet"
            )
        (decode if width == 1 else chunks).append(Group(g, width, history))
    if not decode:
        raise PackageError(f"{where}: no decode group (one token a pass) among its {len(x.shapes)} shape groups")
    return LayerShape(
        hidden, kv_dim, tuple(sorted(decode, key=lambda g: g.history)), tuple(sorted(chunks, key=lambda g: g.history))
    )


class HasTensors(Protocol):
    """A loaded model, as far as its shapes are concerned."""

    path: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


def common_shape(layers: Sequence[HasTensors]) -> LayerShape:
    """The shape that all layers of a model have. PackageError where one differs."""
    shapes = [layer_shape(layer.inputs, layer.outputs, layer.path) for layer in layers]
    for layer, shape in zip(layers, shapes, strict=True):
        if shape != shapes[0]:
            raise PackageError(
                f"{layer.path}: its shape groups differ from those of {layers[0].path}: files of two builds?"
            )
    return shapes[0]

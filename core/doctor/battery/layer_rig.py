"""One layer on the card with a cache of its own: feeds it rows, reads back what it wrote, and where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...device.axmodel import Binding, LoadedModel
from ...device.buffer import DeviceBuffer
from ...device.runtime import Card
from ...device.shape_groups import LAYER_INPUTS, LAYER_OUTPUTS, find_tensor
from ...device.step import Step
from ...errors import PackageError

FP16, BF16, FP32 = 13, 14, 15  # the runtime's numbers of data types
UNWRITTEN = 0x5A  # a byte that outputs hold before an execute


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape group: its number on the card, tokens a pass, rows of history."""

    index: int
    width: int
    history: int


@dataclass(frozen=True, slots=True)
class Written:
    """What an execute left in its outputs: K and V rows and hidden rows, as bytes [tokens, bytes of a row]."""

    k: np.ndarray
    v: np.ndarray
    hidden: np.ndarray


class LayerRig:
    """A loaded layer, bound group by group to buffers of exactly the sizes it asks for."""

    def __init__(self, card: Card, model: LoadedModel) -> None:
        self.card, self.model = card, model
        self.at = {name: find_tensor(model.inputs, name, "layer") for name in LAYER_INPUTS}
        self.out = {name: find_tensor(model.outputs, name, "layer") for name in LAYER_OUTPUTS}
        indices, mask = model.inputs[self.at["indices"]], model.inputs[self.at["mask"]]
        self.groups = [
            Shape(g, indices.shapes[g][-1], mask.shapes[g][-1] - indices.shapes[g][-1]) for g in range(model.num_groups)
        ]
        self.decode = sorted((g for g in self.groups if g.width == 1), key=lambda g: g.history)
        self.chunks = sorted((g for g in self.groups if g.width > 1), key=lambda g: g.history)
        if not self.decode:
            raise PackageError("a layer without a decode group (one token a pass): an unknown kind of layer")
        self.hidden = model.inputs[self.at["input"]].shapes[0][-1]
        self.row_bytes = model.outputs[self.out["K_cache_out"]].sizes[self.decode[-1].index]
        self.rows = self.decode[-1].history
        self._buffers: dict[tuple[str, int], DeviceBuffer] = {}
        self._bindings: dict[int, Binding] = {}
        largest = max(max(model.inputs[self.at[n]].sizes) for n in ("K_cache", "V_cache"))
        self.k, self.v = (DeviceBuffer(card, largest, zero=True) for _ in "kv")

    def binding(self, group: Shape) -> Binding:
        """The group's inputs and outputs, all bound; K and V rows to buffers of their own."""
        if group.index not in self._bindings:
            binding = self._bindings[group.index] = Binding(self.model, group.index)
            caches = {self.at["K_cache"]: self.k, self.at["V_cache"]: self.v}
            for i, tensor in enumerate(self.model.inputs):
                binding.set_input(i, caches.get(i) or self._buffer(f"in{i}", tensor.sizes[group.index]))
            self.bind_rows(group, None)
        return self._bindings[group.index]

    def bind_rows(self, group: Shape, offset: int | None) -> None:
        """Outputs into their own buffers, or K and V into the cache from byte `offset` on."""
        binding = self._bindings[group.index]
        caches = {self.out["K_cache_out"]: self.k, self.out["V_cache_out"]: self.v}
        for i, tensor in enumerate(self.model.outputs):
            if offset is not None and i in caches:
                binding.set_output(i, caches[i], offset)
            else:
                binding.set_output(i, self._buffer(f"out{i}", tensor.sizes[group.index]))

    def _buffer(self, name: str, nbytes: int) -> DeviceBuffer:
        if (name, nbytes) not in self._buffers:
            self._buffers[name, nbytes] = DeviceBuffer(self.card, nbytes, zero=True)
        return self._buffers[name, nbytes]

    def feed(self, group: Shape, hidden: np.ndarray, first: int, view: tuple[int, int]) -> None:
        """Uploads float32 rows [tokens, H] at positions `first` and up, which see the cache rows of `view` and each
        other."""
        self.binding(group)
        padded = np.zeros((group.width, self.hidden), np.float32)
        padded[: len(hidden)] = hidden
        step = Step(group.width)
        step.reset(0)
        seen = step.add_view(*view)
        for i in range(len(hidden)):
            step.add(0, first + i, -1, i - 1, seen, False)
        positions = np.zeros(group.width, np.uint32)
        positions[: len(hidden)] = first + np.arange(len(hidden))
        axes = self.model.inputs[self.at["indices"]].sizes[group.index] // positions.nbytes  # 3 with images, else 1
        mask = _from_bf16(step.mask(group.width, group.history))
        self._upload(group, "input", encode(padded, self.model.inputs[self.at["input"]].dtype))
        self._upload(group, "mask", encode(mask, self.model.inputs[self.at["mask"]].dtype))
        self._upload(group, "indices", np.tile(positions, max(axes, 1)))

    def _upload(self, group: Shape, name: str, value: np.ndarray) -> None:
        size = self.model.inputs[self.at[name]].sizes[group.index]
        data = np.ascontiguousarray(value).view(np.uint8).reshape(-1)
        if len(data) != size:
            raise PackageError(
                f"{name} of group {group.index} takes {size} bytes, not {len(data)}: an unknown kind of layer"
            )
        self._buffer(f"in{self.at[name]}", size).write(data)

    def run(self, group: Shape, hidden: np.ndarray, first: int, view: tuple[int, int]) -> Written:
        """Feeds, executes, reads. Outputs hold UNWRITTEN before."""
        self.feed(group, hidden, first, view)
        for i in self.out.values():
            self.output(group, i).fill(UNWRITTEN)
        self.binding(group).execute()
        return self.read(group, len(hidden))

    def read(self, group: Shape, tokens: int) -> Written:
        """The first rows of the outputs' own buffers."""
        parts = []
        for name in ("K_cache_out", "V_cache_out", "output"):
            whole = self.output(group, self.out[name]).read("uint8")
            parts.append(whole.reshape(group.width, -1)[:tokens])
        return Written(*parts)

    def output(self, group: Shape, i: int) -> DeviceBuffer:
        """The buffer of output number `i`'s own."""
        return self._buffer(f"out{i}", self.model.outputs[i].sizes[group.index])

    def store(self, row: int, written: Written) -> None:
        """Puts K and V rows into the cache from `row` on, through the host."""
        self.k.write(np.ascontiguousarray(written.k), row * self.row_bytes)
        self.v.write(np.ascontiguousarray(written.v), row * self.row_bytes)


def random_rows(tokens: int, hidden: int) -> np.ndarray:
    """Float32 rows that look a little like embeddings, the same each time, none of them zero."""
    return (0.05 * np.random.default_rng(1).standard_normal((tokens, hidden))).astype(np.float32)


def encode(values: np.ndarray, dtype: int) -> np.ndarray:
    """Float32 values as the runtime's data type. ValueError: one that layers are not known to take."""
    if dtype == BF16:
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    if dtype in (FP16, FP32):
        return values.astype(np.float16 if dtype == FP16 else np.float32)
    raise ValueError(f"a tensor of the runtime's data type {dtype}: only bf16, fp16 and fp32 are fed here")


def _from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def decode(data: np.ndarray, dtype: int) -> np.ndarray:
    """Bytes of rows as float32; bf16 where the data type is none of the floats (K and V are compared as bytes then)."""
    kind = {FP16: "float16", FP32: "float32"}.get(dtype, "uint16")
    values = np.ascontiguousarray(data).view(kind)
    return _from_bf16(values) if values.dtype == np.uint16 else values.astype(np.float32)

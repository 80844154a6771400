"""Runs a package on an AXCL runtime through ctypes alone: no core, synchronous calls, one sequence whose row is its
position.

Slow and simple on purpose: where it and the core agree, neither hides the other's mistakes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import c_int32, c_uint8, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import axpress.core.errors
from axpress.core.model_files.model_package import ModelPackage
from axpress.core.model_files.safetensors import from_bf16
from axpress.core.model_files.simulated_axmodel import read_axmodel

LIBRARY = Path(axpress.core.errors.__file__).parent / "lib" / "libaxcl_rt.so"
HIDDEN = np.uint16(0xC780)  # -65536 in bf16
ONE = np.uint16(0x3F80)
H2D, D2H, D2D = 1, 2, 3


class Dims(ctypes.Structure):
    """axclrtEngineIODims."""

    _fields_ = (("count", c_int32), ("dims", c_int32 * 32))


class Runtime:
    """The loaded library; every call that returns an error raises with the function's name."""

    def __init__(self, library: Path = LIBRARY) -> None:
        self.lib = ctypes.CDLL(str(library))
        for name in ("NumInputs", "NumOutputs"):
            getattr(self.lib, f"axclrtEngineGet{name}").restype = c_uint32
        for kind in ("Input", "Output"):
            getattr(self.lib, f"axclrtEngineGet{kind}SizeByIndex").restype = c_uint64
            getattr(self.lib, f"axclrtEngineGet{kind}NameByIndex").restype = ctypes.c_char_p

    def __call__(self, name: str, *args: Any) -> None:
        code = getattr(self.lib, name)(*args)
        if code != 0:
            raise RuntimeError(f"{name} returned 0x{code & 0xFFFFFFFF:08x}")

    def malloc(self, size: int) -> int:
        """A zero-filled device buffer of `size` bytes."""
        pointer = c_void_p()
        self("axclrtMalloc", ctypes.byref(pointer), ctypes.c_size_t(size), 2)
        assert pointer.value
        self("axclrtMemset", pointer, c_uint8(0), ctypes.c_size_t(size))
        return pointer.value

    def upload(self, device: int, array: np.ndarray) -> None:
        """Copies an array to the device."""
        array = np.ascontiguousarray(array)
        self("axclrtMemcpy", c_void_p(device), array.ctypes.data_as(c_void_p), ctypes.c_size_t(array.nbytes), H2D)

    def download(self, device: int, count: int) -> np.ndarray:
        """`count` 16-bit values from the device."""
        array = np.empty(count, np.uint16)
        self("axclrtMemcpy", array.ctypes.data_as(c_void_p), c_void_p(device), ctypes.c_size_t(array.nbytes), D2H)
        return array

    def copy(self, target: int, source: int, size: int) -> None:
        """Copies `size` bytes on the device."""
        self("axclrtMemcpy", c_void_p(target), c_void_p(source), ctypes.c_size_t(size), D2D)


@dataclass
class Group:
    """Shapes of one group: `width` tokens over `history` rows."""

    index: int
    width: int
    history: int


class LoadedFile:
    """A loaded axmodel, its IO in order and one IO object."""

    def __init__(self, runtime: Runtime, path: Path) -> None:
        self.runtime = runtime
        self.model, self.context = c_uint64(), c_uint64()
        self.info, self.io = c_void_p(), c_void_p()
        count = c_int32()
        runtime("axclrtEngineLoadFromFile", str(path).encode(), ctypes.byref(self.model))
        runtime("axclrtEngineCreateContext", self.model, ctypes.byref(self.context))
        runtime("axclrtEngineGetIOInfo", self.model, ctypes.byref(self.info))
        runtime("axclrtEngineGetShapeGroupsCount", self.info, ctypes.byref(count))
        runtime("axclrtEngineCreateIO", self.info, ctypes.byref(self.io))
        self.num_groups = count.value
        self.inputs, self.outputs = (
            [
                getattr(runtime.lib, f"axclrtEngineGet{kind}NameByIndex")(self.info, c_uint32(i)).decode()
                for i in range(number)
            ]
            for kind, number in (
                ("Input", runtime.lib.axclrtEngineGetNumInputs(self.info)),
                ("Output", runtime.lib.axclrtEngineGetNumOutputs(self.info)),
            )
        )

    def dims(self, kind: str, group: int, index: int) -> list[int]:
        """Shape of an input or output (kind "Input" or "Output")."""
        dims = Dims()
        self.runtime(f"axclrtEngineGet{kind}Dims", self.info, c_uint32(group), c_uint32(index), ctypes.byref(dims))
        return list(dims.dims[: dims.count])

    def input_bytes(self, index: int, group: int = 0) -> int:
        """Bytes of an input."""
        return int(self.runtime.lib.axclrtEngineGetInputSizeByIndex(self.info, c_uint32(group), c_uint32(index)))

    def execute(self, group: int, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Binds device buffers in IO order, each with the group's own size, and runs."""
        for kind, buffers in (("Input", inputs), ("Output", outputs)):
            for index, buffer in enumerate(buffers):
                size = getattr(self.runtime.lib, f"axclrtEngineGet{kind}SizeByIndex")(
                    self.info, c_uint32(group), c_uint32(index)
                )
                self.runtime(
                    f"axclrtEngineSet{kind}BufferByIndex", self.io, c_uint32(index), c_void_p(buffer), c_uint64(size)
                )
        self.runtime("axclrtEngineExecute", self.model, self.context, c_uint32(group), self.io)

    def close(self) -> None:
        """Unloads the model."""
        self.runtime("axclrtEngineDestroyIO", self.io)
        self.runtime("axclrtEngineDestroyIOInfo", self.info)
        self.runtime("axclrtEngineUnload", self.model)


class Runner:
    """One sequence on a package: `feed` tokens in groups of a chosen width, get logits; `caches` are the K and V
    bytes."""

    def __init__(self, runtime: Runtime, package: ModelPackage) -> None:
        self.runtime = runtime
        self.head = LoadedFile(runtime, package.head_file)
        self.layers = [LoadedFile(runtime, path) for path in package.layer_files]
        self.recurrent = package.recurrent or (False,) * len(self.layers)
        first = self.layers[self.recurrent.index(False)]
        assert first.inputs == ["K_cache", "V_cache", "indices", "input", "mask"], first.inputs
        assert first.outputs == ["K_cache_out", "V_cache_out", "output"], first.outputs
        self.groups = []
        for group in range(first.num_groups):
            width, seen = first.dims("Input", group, 2)[-1], first.dims("Input", group, 4)[-1]
            self.groups.append(Group(group, width, seen - width))
        self.windows = package.windows or (0,) * len(self.layers)
        self.rows = max(group.history for group in self.groups if group.width == 1)
        self.kv, self.hidden = first.dims("Input", 0, 0)[-1], first.dims("Input", 0, 3)[-1]
        self.vocab = self.head.dims("Output", 0, 0)[-1]
        self.embedding = package.embedding(self.hidden)
        width = max(group.width for group in self.groups)
        row, seen = 2 * self.kv, max(group.history + group.width for group in self.groups)
        self.buffers: list[int] = []
        sizes = [
            [layer.input_bytes(index) for index in (0, 1)] if recurrent else [self.rows * row] * 2
            for layer, recurrent in zip(self.layers, self.recurrent, strict=True)
        ]
        self.sizes = sizes
        self.caches = [(self._buffer(k), self._buffer(v)) for k, v in sizes]  # of recurrent layers the states, ...
        self.other_states = [(self._buffer(k), self._buffer(v)) for k, v in sizes]  # ... and those that come out
        metas = [read_axmodel(path)[0] for path in package.layer_files]
        self.exact_padding = all(meta.padding == "exact" for meta in metas)
        self.axes = (
            max(
                len(first.dims("Input", group.index, 2)) > 1 and first.dims("Input", group.index, 2)[0]
                for group in self.groups
            )
            or 1
        )
        self.k_out, self.v_out = self._buffer(width * row), self._buffer(width * row)
        self.x = [self._buffer(width * self.hidden * 2) for _ in range(2)]
        self.indices, self.mask = self._buffer(width * 12), self._buffer(width * seen * 2)
        self.tokens_mask = self._buffer(width * 2)
        self.head_in, self.logits = self._buffer(self.hidden * 2), self._buffer(self.vocab * 4)
        self.used = 0

    def _buffer(self, size: int) -> int:
        self.buffers.append(self.runtime.malloc(size))
        return self.buffers[-1]

    def group_for(self, width: int) -> Group | None:
        """The group of that width with the least history that covers the rows in use."""
        fitting = [group for group in self.groups if group.width == width and group.history >= self.used]
        return min(fitting, key=lambda group: group.history, default=None)

    def feed(self, tokens: Sequence[int], width: int) -> np.ndarray:
        """Runs `tokens` through groups of `width` (decode where none of that width fits); logits float32 [len(tokens),
        vocab]."""
        logits, position = [], 0
        while position < len(tokens):
            group = self.group_for(width) or self.group_for(1)
            assert group is not None, "the cache is full"
            part = tokens[position : position + group.width]
            if len(part) < group.width and not self.exact_padding:  # a padded tail would spoil the states
                group, part = self.group_for(1) or group, part[:1]
            logits += self._run(group, part)
            position += len(part)
        return np.array(logits)

    def _run(self, group: Group, tokens: Sequence[int]) -> list[np.ndarray]:
        self.run_layers(group, tokens)
        last = self.x[len(self.layers) % 2]
        return [self.logits_of(last + 2 * self.hidden * token) for token in range(len(tokens))]

    def run_layers(self, group: Group, tokens: Sequence[int]) -> None:
        """The tokens that come next, through the layers alone."""
        count, row = len(tokens), 2 * self.kv
        rows = np.zeros((group.width, self.hidden), np.uint16)
        rows[:count] = self.rows_of(tokens)
        positions = np.zeros((self.axes, group.width), np.uint32)
        positions[:, :count] = self.positions(count)
        self.runtime.upload(self.x[0], rows)
        self.runtime.upload(self.indices, positions if group.width > 1 else positions[0])
        shown = np.zeros(group.width, np.uint16)
        shown[:count] = ONE
        self.runtime.upload(self.tokens_mask, shown)
        masks = {window: self._mask(group, count, window) for window in set(self.windows)}
        for number, (layer, (k, v)) in enumerate(zip(self.layers, self.caches, strict=True)):
            source, target = self.x[number % 2], self.x[1 - number % 2]
            if self.recurrent[number]:
                after = self.other_states[number]
                layer.execute(group.index, (k, v, self.indices, source, self.tokens_mask), (*after, target))
                self.caches[number], self.other_states[number] = after, (k, v)
                continue
            self.runtime.upload(self.mask, masks[self.windows[number]])
            layer.execute(group.index, (k, v, self.indices, source, self.mask), (self.k_out, self.v_out, target))
            self.runtime.copy(k + self.used * row, self.k_out, count * row)
            self.runtime.copy(v + self.used * row, self.v_out, count * row)
            self.after_layer(number, target, count)
        self.used += count

    def rows_of(self, tokens: Sequence[int]) -> np.ndarray:
        """What the first layer gets of the tokens that come next: their embeddings, bf16 bits [count, H]."""
        return self.embedding[np.array(tokens)]

    def positions(self, count: int) -> np.ndarray:
        """Positions of so many tokens that come next, [axes, count] or [count]."""
        return self.used + np.arange(count)

    def after_layer(self, number: int, output: int, count: int) -> None:
        """Called when a layer's output is there, of so many tokens that come next."""

    def _mask(self, group: Group, count: int, window: int) -> np.ndarray:
        mask = np.full((group.width, group.history + group.width), HIDDEN, np.uint16)
        mask[:count, : self.used] = 0
        own = mask[:, group.history :]
        own[np.tril_indices(count)] = 0
        for token in range(count if window else 0):  # rows are positions here
            beyond = max(self.used + token - window + 1, 0)
            mask[token, : min(beyond, self.used)] = HIDDEN
            own[token, : max(beyond - self.used, 0)] = HIDDEN
        # padding sees itself: a finite softmax, thrown away
        own[range(count, group.width), range(count, group.width)] = 0
        return mask

    def logits_of(self, row: int) -> np.ndarray:
        """Of a hidden row on the device, float32 [vocab]."""
        self.runtime.copy(self.head_in, row, 2 * self.hidden)
        self.head.execute(0, (self.head_in,), (self.logits,))
        return from_bf16(self.runtime.download(self.logits, self.vocab))

    def cache_bytes(self) -> bytes:
        """K and V rows in use, of every layer; of recurrent layers the states."""
        return b"".join(
            self.runtime.download(buffer, size // 2 if recurrent else self.used * self.kv).tobytes()
            for pair, sizes, recurrent in zip(self.caches, self.sizes, self.recurrent, strict=True)
            for buffer, size in zip(pair, sizes, strict=True)
        )

    def reset(self) -> None:
        """Forgets the sequence; what the rows hold stays, as on the card. States become zeros."""
        self.used = 0
        for pair, sizes, recurrent in zip(self.caches, self.sizes, self.recurrent, strict=True):
            for buffer, size in zip(pair, sizes, strict=True) if recurrent else ():
                self.runtime.upload(buffer, np.zeros(size, np.uint8))

    def close(self) -> None:
        """Frees models and buffers."""
        for file in (*self.layers, self.head):
            file.close()
        for buffer in self.buffers:
            self.runtime("axclrtFree", c_void_p(buffer))


@contextmanager
def open_runtime(profile: str = "none") -> Iterator[Runtime]:
    """The emulated runtime with a timing profile, initialised with device 1; loading takes no time. Finalised at the
    end."""
    runtime = Runtime()
    context = c_void_p()
    runtime("axemu_set", b"PROFILE", profile.encode())
    runtime("axemu_set", b"LOAD_TIME", b"0")
    runtime("axclInit", None)
    try:
        runtime("axclrtSetDevice", c_int32(1))
        runtime("axclrtCreateContext", ctypes.byref(context), c_int32(1))
        runtime("axclrtEngineInit", 0)
        yield runtime
        runtime("axclrtEngineFinalize")
        runtime("axclrtDestroyContext", context)
        runtime("axclrtResetDevice", c_int32(1))
    finally:
        runtime("axclFinalize")
        runtime("axemu_set", b"PROFILE", b"none")  # settings outlive the runtime's session
        runtime("axemu_set", b"LOAD_TIME", b"1")

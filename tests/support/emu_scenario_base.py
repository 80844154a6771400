"""What the scenarios of the emulated runtime share: calls through plain ctypes, no core, and hollow model files.

A scenario is a function whose name begins with do_; `python emu_..._scenarios.py NAME FOLDER` runs it in a process of
its own."""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from ctypes import byref, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from axpress.core.device.emulator import Emulator, emulator_library

LIB = ctypes.CDLL(str(emulator_library()))
EMU = Emulator()
FOLDER = Path(sys.argv[2] if len(sys.argv) > 2 else ".")
H2H, H2D, D2H, D2D = range(4)
NO_CONTEXT, NO_MEMORY, NOT_DEVICE, OFFLINE = 0x80300284, 0x80300507, 0x80300581, 0x80300181
MEMORY_ILLEGAL, MEMORY_BUSY, ENGINE_ILLEGAL, ENGINE_BUSY = 0x80300503, 0x80300506, 0x80300703, 0x80300706
SYNC_TIMEOUT, EXECUTE_FAIL = 0x80300383, 0x8030070C
POISON = b"\xc0\x7f"


def call(name: str, *args: Any) -> int:
    """The error value of a call, as an unsigned number; Python bytes pass as C strings."""
    return ctypes.c_uint32(getattr(LIB, name)(*args)).value


def ok(name: str, *args: Any) -> None:
    """A call that must work."""
    error = call(name, *args)
    assert error == 0, f"{name} returned {error:#x}: {EMU.last_error()}"


def refused(expected: int, words: str, name: str, *args: Any) -> None:
    """A call that must fail with this error value and a sentence that holds `words`."""
    error = call(name, *args)
    assert error == expected, f"{name} returned {error:#x}, not {expected:#x}: {EMU.last_error()}"
    assert words in EMU.last_error(), f"{name}: {EMU.last_error()}"


def start() -> None:
    """axclInit, device 1, the first, engine."""
    ok("axclInit", None)
    ok("axclrtSetDevice", 1)
    ok("axclrtEngineInit", 0)


def malloc(size: int) -> int:
    """Device memory, as it comes."""
    pointer = c_void_p()
    ok("axclrtMalloc", byref(pointer), c_size_t(size), 2)
    assert pointer.value
    return pointer.value


def zeros(size: int) -> int:
    """Device memory, zero-filled."""
    pointer = malloc(size)
    ok("axclrtMemset", c_void_p(pointer), c_uint8(0), c_size_t(size))
    return pointer


def pinned(size: int) -> int:
    """Pinned host memory."""
    pointer = c_void_p()
    ok("axclrtMallocHost", byref(pointer), c_size_t(size))
    assert pointer.value
    return pointer.value


def copy_args(target: Any, source: Any, size: int, kind: int) -> tuple[Any, ...]:
    """Arguments of axclrtMemcpy."""
    return c_void_p(target), source if isinstance(source, bytes) else c_void_p(source), c_size_t(size), kind


def up(target: int, data: bytes) -> None:
    """Bytes to the device."""
    ok("axclrtMemcpy", *copy_args(target, data, len(data), H2D))


def down(source: int, size: int) -> bytes:
    """Bytes from the device."""
    buffer = ctypes.create_string_buffer(size)
    ok("axclrtMemcpy", *copy_args(ctypes.addressof(buffer), source, size, D2H))
    return buffer.raw


def stream() -> c_void_p:
    """A new stream."""
    handle = c_void_p()
    ok("axclrtCreateStream", byref(handle))
    return handle


# ---- models
# --------------------------------------------------------------------------------------------------------------

HIDDEN, KV, ROWS, CHUNK, HISTORY, VOCAB = 64, 32, 15, 8, 8, 96
LAYER = {
    "kind": "layer",
    "family": "qwen3",
    "layer": "0",
    "layers": "2",
    "hidden": "64",
    "heads": "4",
    "kv_heads": "2",
    "head_dim": "16",
}
LAYER |= {"ffn": "96", "decode_rows": "15", "chunk": "8", "history": "0,8", "hollow": "1", "cmm_bytes": "1048576"}
HEAD = {
    "kind": "head",
    "family": "qwen3",
    "hidden": "64",
    "vocab": "96",
    "layers": "2",
    "hollow": "1",
    "cmm_bytes": "1048576",
}
DECODE, CHUNK_0, CHUNK_1 = range(3)


def model_file(name: str, metadata: dict[str, str], **more: str) -> bytes:
    """Path of a hollow model: a safetensors file without tensors."""
    header = json.dumps({"__metadata__": {"format": "axpress-sim-1", **metadata, **more}}).encode()
    path = FOLDER / name
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return str(path).encode()


def layer_with_weights(name: str, **more: Any) -> bytes:
    """Path of a small layer with random weights; `more` goes into its metadata."""
    import numpy as np

    from axpress.core.model_files.safetensors import array_source, bf16_source
    from axpress.core.model_files.simulated_axmodel import SimMeta, tensor_shapes, write_axmodel

    groups: dict[str, Any] = {"decode_rows": (ROWS,), "chunk": CHUNK, "history": (0, HISTORY)}
    meta = SimMeta("qwen3", 0, 2, HIDDEN, 4, 2, 16, 96, 0, **groups, **more)
    random = np.random.default_rng(7)
    shapes, _ = tensor_shapes(meta)
    arrays = {key: random.normal(0, 0.2, shape).astype(np.float32) for key, shape in shapes.items()}
    arrays["inv_freq"] = (10000.0 ** (-np.arange(8) / 8)).astype(np.float32)
    sources = {key: array_source(value) if key == "inv_freq" else bf16_source(value) for key, value in arrays.items()}
    write_axmodel(FOLDER / name, meta, sources)
    return str(FOLDER / name).encode()


class Model:
    """A loaded model, its IO info and one IO; `size` asks for a tensor's bytes."""

    def __init__(self, path: bytes) -> None:
        self.id, self.context, self.info, self.io = c_uint64(), c_uint64(), c_void_p(), c_void_p()
        ok("axclrtEngineLoadFromFile", path, byref(self.id))
        ok("axclrtEngineCreateContext", self.id, byref(self.context))
        ok("axclrtEngineGetIOInfo", self.id, byref(self.info))
        ok("axclrtEngineCreateIO", self.info, byref(self.io))

    def size(self, way: str, group: int, index: int) -> int:
        """Bytes of input or output (`way` Input or Output) `index` in a group."""
        get = getattr(LIB, f"axclrtEngineGet{way}SizeByIndex")
        get.restype = c_uint64
        return int(get(self.info, c_uint32(group), c_uint32(index)))

    def bind(self, way: str, index: int, pointer: int, size: int) -> int:
        """Error value of binding one buffer."""
        return call(f"axclrtEngineSet{way}BufferByIndex", self.io, c_uint32(index), c_void_p(pointer), c_uint64(size))

    def bind_all(self, group: int) -> tuple[list[int], list[int]]:
        """Own zero-filled buffers of the exact sizes for everything; returns them."""
        result: tuple[list[int], list[int]] = ([], [])
        for way, pointers in zip(("Input", "Output"), result, strict=True):
            for index in range(getattr(LIB, f"axclrtEngineGetNum{way}s")(self.info)):
                size = self.size(way, group, index)
                pointers.append(zeros(size))
                assert self.bind(way, index, pointers[-1], size) == 0
        return result

    def args(self, group: int) -> tuple[Any, ...]:
        """Arguments of axclrtEngineExecute."""
        return self.id, self.context, c_uint32(group), self.io

    def close(self) -> None:
        """Destroys and unloads."""
        ok("axclrtEngineDestroyIO", self.io)
        ok("axclrtEngineDestroyIOInfo", self.info)
        ok("axclrtEngineUnload", self.id)


def main(scenarios: dict[str, Any]) -> None:
    """Runs the scenario that the command line names."""
    scenarios[f"do_{sys.argv[1]}"]()
    sys.stdout.write("done\n")

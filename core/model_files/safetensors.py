"""Safetensors files, read by mmap and written as streams, and the rounding to bf16 on the way.

A safetensors file is an 8-byte little-endian header length, a JSON header (tensor name -> dtype, shape, byte range
after the header; `__metadata__` holds strings) and the tensors' bytes, row-major. bf16 has no NumPy dtype: here it is
always a uint16 array that holds the 16 bits."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import PackageError

ALIGNMENT = 64  # of the first tensor byte, so that vector loads from a mapped file start on a cache line
BLOCK_BYTES = 4 << 20  # how much of a tensor is held in memory while it is converted
MAX_HEADER = 100 << 20  # the format's own limit

NUMPY_DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
}
UInt16Array = npt.NDArray[np.uint16]


def to_bf16(values: np.ndarray) -> UInt16Array:
    """Round float32 or float16 `values` to bf16 (nearest, ties to even; NaN stays NaN), as uint16 of the same shape."""
    single = np.ascontiguousarray(values, dtype=np.float32)
    bits = single.view(np.uint32)
    rounded = (bits >> 16) & 1
    rounded += 0x7FFF
    rounded += bits  # wraps only for NaN, which is put right below
    rounded >>= 16
    result = rounded.astype(np.uint16)
    nan = np.isnan(single)
    if nan.any():
        result[nan] = ((bits[nan] >> 16) | 0x40).astype(np.uint16)
    return result


def from_bf16(bits: np.ndarray) -> npt.NDArray[np.float32]:
    """The float32 values of bf16 `bits` (uint16), same shape; a copy."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies: safetensors dtype name, shape, and its byte range [start, end) in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """A safetensors file mapped into memory. Raises PackageError, naming the file, when it is not a sound one.

    `metadata` is the header's string map, `tensors` name -> TensorInfo. Arrays from `array` are views of the mapping,
    so pages are read only when touched; the mapping lives as long as any of them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 8:
                raise self._broken(f"it has only {size} bytes")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length = int.from_bytes(self._map[:8], "little")
        if length > min(size - 8, MAX_HEADER):
            raise self._broken(f"its header claims {length} bytes of a file of {size}")
        self._data_start = 8 + length
        self.metadata, self.tensors = self._parse(self._map[8 : 8 + length], size)

    def _broken(self, what: str) -> PackageError:
        return PackageError(f"{self.path} is not a sound safetensors file: {what}; download or convert it again")

    def _parse(self, raw: bytes, size: int) -> tuple[dict[str, str], dict[str, TensorInfo]]:
        try:
            header = json.loads(raw)
        except ValueError:
            raise self._broken("its header is not JSON") from None
        if not isinstance(header, dict):
            raise self._broken("its header is not a JSON object")
        metadata = header.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict):
            raise self._broken("its __metadata__ is not a JSON object")
        tensors = {name: self._tensor(name, entry, size) for name, entry in header.items()}
        return {str(key): str(value) for key, value in metadata.items()}, tensors

    def _tensor(self, name: str, entry: object, size: int) -> TensorInfo:
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]  # type: ignore[index]
        except (TypeError, KeyError, ValueError):
            raise self._broken(f"tensor {name!r} has no dtype, shape and data_offsets") from None
        integers = all(isinstance(number, int) and number >= 0 for number in (*shape, begin, end))
        if not integers or not isinstance(dtype, str) or begin > end:
            raise self._broken(f"tensor {name!r} has an impossible shape or byte range")
        if self._data_start + end > size:
            missing = self._data_start + end - size
            raise self._broken(f"tensor {name!r} reaches {missing} bytes past the end of the file, which was cut short")
        known = NUMPY_DTYPES.get(dtype)
        if known is not None and int(np.prod(shape, dtype=object)) * known.itemsize != end - begin:
            raise self._broken(
                f"tensor {name!r} of shape {list(shape)} and type {dtype} cannot have {end - begin} bytes"
            )
        return TensorInfo(dtype, shape, self._data_start + begin, self._data_start + end)

    def array(self, name: str) -> np.ndarray:
        """Tensor `name` as a read-only view of the mapping; BF16 comes as uint16. PackageError: absent, or a type
        without arrays."""
        info = self.tensors.get(name)
        if info is None:
            raise PackageError(f"{self.path} has no tensor {name!r}")
        dtype = NUMPY_DTYPES.get(info.dtype)
        if dtype is None:
            raise PackageError(f"tensor {name!r} in {self.path} has type {info.dtype}, which cannot be read here")
        return np.frombuffer(
            self._map, dtype, count=(info.end - info.start) // dtype.itemsize, offset=info.start
        ).reshape(info.shape)


@dataclass(frozen=True, slots=True)
class TensorSource:
    """A tensor to write: safetensors dtype, shape, and a function that yields its values as consecutive arrays."""

    dtype: str
    shape: tuple[int, ...]
    blocks: Callable[[], Iterable[np.ndarray]]

    @property
    def num_bytes(self) -> int:
        """Bytes that the tensor takes in a file."""
        return int(np.prod(self.shape, dtype=np.int64)) * NUMPY_DTYPES[self.dtype].itemsize


def array_source(array: np.ndarray) -> TensorSource:
    """A source for a float32 array (written as F32) or a uint16 one (bf16 bits, written as BF16)."""
    dtype = {np.dtype(np.float32): "F32", np.dtype(np.uint16): "BF16"}[array.dtype]
    return TensorSource(dtype, array.shape, lambda: [array])


def bf16_source(array: np.ndarray) -> TensorSource:
    """A source that yields a float32, float16 or (uint16) bf16 `array` as bf16, converted a few MiB at a time."""

    def blocks() -> Iterator[np.ndarray]:
        flat = array.reshape(-1)
        step = BLOCK_BYTES // 4
        for start in range(0, flat.size, step):
            part = flat[start : start + step]
            yield part if part.dtype == np.uint16 else to_bf16(part)

    return TensorSource("BF16", array.shape, blocks)


def write_safetensors(
    path: str | os.PathLike[str], metadata: Mapping[str, str], tensors: Mapping[str, TensorSource]
) -> None:
    """Write a safetensors file block by block. The 4-byte types come first, so every tensor is aligned to its
    element."""
    ordered = sorted(tensors.items(), key=lambda item: -NUMPY_DTYPES[item[1].dtype].itemsize)
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, source in ordered:
        header[name] = {
            "dtype": source.dtype,
            "shape": list(source.shape),
            "data_offsets": [offset, offset + source.num_bytes],
        }
        offset += source.num_bytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-(len(raw) + 8) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name, source in ordered:
            written = sum(_write_block(file, block, source.dtype) for block in source.blocks())
            if written != source.num_bytes:
                raise ValueError(f"tensor {name!r} yielded {written} bytes, its shape needs {source.num_bytes}")


def _write_block(file, block: np.ndarray, dtype: str) -> int:  # type: ignore[no-untyped-def]
    if block.dtype != NUMPY_DTYPES[dtype]:
        raise ValueError(f"a block of {block.dtype} in a tensor of type {dtype}")
    file.write(np.ascontiguousarray(block).data)
    return block.nbytes

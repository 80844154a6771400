"""Simulated axmodels and Hugging Face checkpoints: safetensors files, read by mmap and written as streams.

A safetensors file is an 8-byte little-endian header length, a JSON header (tensor name -> dtype, shape, byte range
after the header; `__metadata__` holds strings) and the tensors' bytes, row-major. bf16 has no NumPy dtype: here it is
always a uint16 array that holds the 16 bits."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import PackageError

FORMAT = "axpress-sim-1"
COMPILER = "axpress-sim 1"
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
# what such a layer cannot lack
FAMILY_TENSORS = {"qwen3": ("q_norm", "k_norm"), "qwen2": ("q_bias", "k_bias", "v_bias")}
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


@dataclass(frozen=True, slots=True)
class SimMeta:
    """What the metadata of a simulated axmodel says. Sizes in elements, costs in microseconds, memory in bytes.

    `layer` is None for the head. `history` has one entry per chunk group. `cost_*` and `cmm_bytes` None: the emulator's
    profile and the file's size decide. `hollow`: the file has no tensors, only shapes and costs.
    """

    family: str
    layer: int | None
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rms_eps: float = 1e-6
    decode_rows: tuple[int, ...] = (2047,)
    chunk: int = 0
    history: tuple[int, ...] = ()
    rope_attention_factor: float = 1.0
    head_rows: tuple[int, ...] = (1,)
    output_dtype: str = "bf16"
    hollow: bool = False
    cmm_bytes: int | None = None
    cost_decode_us: float | None = None
    cost_chunk_us: tuple[float, ...] | None = None
    cost_head_us: float | None = None
    profile: str | None = None
    compiler: str = COMPILER

    @property
    def kind(self) -> str:
        """ "layer" or "head"."""
        return "head" if self.layer is None else "layer"

    def to_metadata(self) -> dict[str, str]:
        """The string map for the file's `__metadata__`."""
        fields = _COMMON + (_HEAD_ONLY if self.layer is None else _LAYER_ONLY)
        result = {"format": FORMAT, "kind": self.kind}
        for name in fields:
            value = getattr(self, name)
            if value is not None and value != ():
                result[name] = _to_text(value)
        if not self.hollow:
            del result["hollow"]
        return result

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: str | os.PathLike[str]) -> SimMeta:
        """Parse and check the `__metadata__` of the file `path`; PackageError names the file and the key."""
        if metadata.get("format") != FORMAT:
            raise PackageError(
                f"{path} is not a simulated axmodel of this version: format is {metadata.get('format')!r}, not"
                f" {FORMAT!r}"
            )
        kind = metadata.get("kind")
        if kind not in ("layer", "head"):
            raise PackageError(f"{path} is damaged: its kind is {kind!r}, not 'layer' or 'head'; convert it again")
        values: dict[str, object] = {"layer": None}
        required = {
            "family",
            "hidden",
            *(("vocab",) if kind == "head" else ("layer", "heads", "kv_heads", "head_dim", "ffn")),
        }
        for name, parse in _PARSERS.items():
            if name not in metadata:
                if name in required:
                    raise PackageError(f"{path} is damaged: its metadata lacks {name!r}; convert it again")
                continue
            try:
                values[name] = parse(metadata[name])
            except ValueError:
                raise PackageError(
                    f"{path} is damaged: {name} is {metadata[name]!r} in its metadata; convert it again"
                ) from None
        if kind == "head":
            values["layer"] = None
        for name in ("layers", "heads", "kv_heads", "head_dim", "ffn", "vocab"):
            values.setdefault(name, 0)
        return cls(**values)  # type: ignore[arg-type]


def _to_text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ",".join(_to_text(item) for item in value)
    return str(value)


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split(",") if item.strip())


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(item) for item in text.split(",") if item.strip())


_COMMON = ("family", "layers", "hidden", "rms_eps", "hollow", "cmm_bytes", "profile", "compiler")
_LAYER_ONLY = (
    *("layer", "heads", "kv_heads", "head_dim", "ffn", "decode_rows", "chunk", "history", "rope_attention_factor"),
    *("cost_decode_us", "cost_chunk_us"),
)
_HEAD_ONLY = ("vocab", "head_rows", "output_dtype", "cost_head_us")
_PARSERS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("family", "output_dtype", "profile", "compiler"), str),
    **dict.fromkeys(
        ("layer", "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "chunk", "cmm_bytes"), int
    ),
    **dict.fromkeys(("rms_eps", "rope_attention_factor", "cost_decode_us", "cost_head_us"), float),
    **dict.fromkeys(("decode_rows", "history", "head_rows"), _ints),
    "cost_chunk_us": _floats,
    "hollow": lambda text: text == "1",
}


def write_axmodel(
    path: str | os.PathLike[str], meta: SimMeta, tensors: Mapping[str, TensorSource] | None = None
) -> None:
    """Write a simulated axmodel; without `tensors` it must be a hollow one. Shapes are checked against `meta`."""
    tensors = tensors or {}
    if not meta.hollow:
        check_shapes({name: source.shape for name, source in tensors.items()}, meta, path)
    write_safetensors(path, meta.to_metadata(), tensors)


def read_axmodel(path: str | os.PathLike[str]) -> tuple[SimMeta, SafetensorsFile]:
    """Open a simulated axmodel by mmap and check it; PackageError names the file and what is wrong."""
    file = SafetensorsFile(path)
    meta = SimMeta.from_metadata(file.metadata, path)
    if not meta.hollow:
        check_shapes({name: info.shape for name, info in file.tensors.items()}, meta, path)
    return meta, file


def is_simulated(path: str | os.PathLike[str]) -> bool:
    """Whether the file starts like a simulated axmodel; reads only its first bytes. False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            start = file.read(8 + 256)
    except OSError:
        return False
    return start[8:9] == b"{" and b'"__metadata__"' in start and FORMAT.encode() in start


def lfs_pointer_size(path: str | os.PathLike[str]) -> int | None:
    """The size of the real file if `path` is a Git LFS pointer (a clone without LFS has those), else None."""
    if os.stat(path).st_size > 1024:
        return None
    with open(path, "rb") as file:
        text = file.read(1024)
    if not text.startswith(b"version https://git-lfs"):
        return None
    sizes = [line[5:] for line in text.splitlines() if line.startswith(b"size ") and line[5:].isdigit()]
    return int(sizes[0]) if sizes else 0


def tensor_shapes(meta: SimMeta) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Names and shapes of the tensors that a file with this metadata must have, and of those that it may have."""
    if meta.layer is None:
        return {"norm": (meta.hidden,), "head": (meta.vocab, meta.hidden)}, {}
    width, kv_width = meta.heads * meta.head_dim, meta.kv_heads * meta.head_dim
    required: dict[str, tuple[int, ...]] = {
        "input_norm": (meta.hidden,),
        "q": (width, meta.hidden),
        "k": (kv_width, meta.hidden),
        "v": (kv_width, meta.hidden),
        "o": (meta.hidden, width),
        "post_norm": (meta.hidden,),
        "gate": (meta.ffn, meta.hidden),
        "up": (meta.ffn, meta.hidden),
        "down": (meta.hidden, meta.ffn),
        "inv_freq": (meta.head_dim // 2,),
    }
    optional: dict[str, tuple[int, ...]] = {
        "q_bias": (width,),
        "k_bias": (kv_width,),
        "v_bias": (kv_width,),
        "o_bias": (meta.hidden,),
    }
    optional |= {"q_norm": (meta.head_dim,), "k_norm": (meta.head_dim,)}
    for name in FAMILY_TENSORS.get(meta.family, ()):
        required[name] = optional.pop(name)
    return required, optional


def check_shapes(shapes: Mapping[str, Sequence[int]], meta: SimMeta, path: str | os.PathLike[str]) -> None:
    """Raise PackageError unless `shapes` (name -> shape) are exactly what `meta` asks for."""
    required, optional = tensor_shapes(meta)
    for name in required:
        if name not in shapes:
            raise PackageError(
                f"{path} has no tensor {name!r}, which a {meta.kind} of family {meta.family} needs: convert it again"
            )
    for name, shape in shapes.items():
        expected = required.get(name) or optional.get(name)
        if expected is None:
            raise PackageError(f"{path} has a tensor {name!r} that a {meta.kind} of family {meta.family} does not know")
        if tuple(shape) != expected:
            raise PackageError(
                f"{path} is damaged: tensor {name!r} has shape {list(shape)}, its metadata asks for {list(expected)}"
            )

"""The embedding table of a package: bf16, fp16 or fp32 values, as raw bytes or NumPy's .npy, read row by row.

The card takes bf16. Tables of other types are rounded (nearest, ties to even) one row at a time, when first needed."""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PackageError
from .package_config import AGAIN
from .safetensors import from_bf16, to_bf16

DTYPES: dict[str, np.dtype[Any]] = {"bf16": np.dtype("<u2"), "fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}
NAMED = (
    (re.compile(r"bfloat16|bf16"), "bf16"), (re.compile(r"float32|fp32|f32"), "fp32"),
    (re.compile(r"float16|fp16|f16"), "fp16"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EmbeddingFile:
    """Where the table lies and what its values are. `rows` and `hidden` are None where neither the file nor the
    configuration tells them; `num_bytes` are the values alone, without a header."""

    path: Path
    dtype: str
    num_bytes: int
    rows: int | None = None
    hidden: int | None = None
    scale: float = 1.0
    """What rows are multiplied with when they are read."""

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return DTYPES[self.dtype].itemsize

    def with_shape(self, rows: int | None, hidden: int | None) -> EmbeddingFile:
        """The same with what is known of its shape, and the rest worked out. PackageError: the size does not fit."""
        rows, hidden = rows or self.rows, hidden or self.hidden
        if rows and hidden and self.num_bytes != rows * hidden * self.itemsize:
            raise PackageError(
                f"{self.path} has {self.num_bytes} bytes, a vocabulary of {rows} with rows of {hidden} needs"
                f" {rows * hidden * self.itemsize}: {AGAIN}"
            )
        known = rows or hidden
        if known and self.num_bytes % (self.itemsize * known):
            raise PackageError(
                f"{self.path} has {self.num_bytes} bytes, which is no multiple of {self.itemsize * known}: it was cut"
                f" short, {AGAIN}"
            )
        if known:
            other = self.num_bytes // (self.itemsize * known)
            rows, hidden = rows or other, hidden or other
        return replace(self, rows=rows, hidden=hidden)

    def open(self, hidden: int) -> EmbeddingTable:
        """The table, mapped, never read as a whole. `hidden`: the width that the layers take; PackageError if the table
        cannot have it."""
        if self.hidden not in (None, hidden) or self.num_bytes % (self.itemsize * hidden):
            known = self.hidden or f"unknown and it has {self.num_bytes} bytes"
            raise PackageError(
                f"{self.path} does not fit the layers, which take rows of {hidden}: its width is {known}; {AGAIN}"
            )
        if self.path.suffix.lower() == ".npy":
            values = _npy(self.path)
        else:
            with open(self.path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            # a token needs one row: reading ahead around it cost a millisecond in the middle of a step
            mapped.madvise(mmap.MADV_RANDOM)
            values = np.frombuffer(mapped, dtype=DTYPES[self.dtype])
        return EmbeddingTable(values.reshape(-1, hidden), self.scale)


def scale_bf16(bits: np.ndarray, scale: float) -> npt.NDArray[np.uint16]:
    """bf16 values (bits, uint16) times a number, in float32, rounded to bf16 again."""
    return to_bf16(from_bf16(bits) * np.float32(scale))


class EmbeddingTable:
    """A table of bf16 rows. `array` is uint16 [vocab, hidden]; where the file has another type, or its rows are scaled,
    they hold values only once they were needed."""

    def __init__(self, source: np.ndarray, scale: float = 1.0) -> None:
        """`source`: uint16 (bf16 bits), float16 or float32 [vocab, hidden]; `scale`: what rows are multiplied
        with."""
        self._scale = scale
        self._source: np.ndarray | None = None
        self.array: npt.NDArray[np.uint16] = source
        if source.dtype != np.uint16 or scale != 1.0:
            # zero pages: memory is taken for the rows that are used
            self._source, self._done = source, np.zeros(len(source), bool)
            self.array = np.zeros(source.shape, np.uint16)

    @property
    def shape(self) -> tuple[int, int]:
        """(vocab, hidden)."""
        return self.array.shape[0], self.array.shape[1]

    def __len__(self) -> int:
        return len(self.array)

    @property
    def rounds(self) -> bool:
        """Whether `need` has to be called before rows of `array` are read."""
        return self._source is not None

    def need(self, ids: Sequence[int] | np.ndarray) -> None:
        """Makes rows of `array` hold their values. IndexError: an id out of the vocabulary."""
        if self._source is not None:
            wanted = np.unique(np.asarray(ids))
            wanted = wanted[~self._done[wanted]]
            rows = to_bf16(self._source[wanted]) if self._source.dtype != np.uint16 else self._source[wanted]
            self.array[wanted] = rows if self._scale == 1.0 else scale_bf16(rows, self._scale)
            self._done[wanted] = True

    def __getitem__(self, ids: int | Sequence[int] | np.ndarray) -> npt.NDArray[np.uint16]:
        """bf16 bits of the rows, uint16 [..., hidden]."""
        self.need(np.atleast_1d(ids))
        rows: npt.NDArray[np.uint16] = self.array[ids]
        return rows


def read_embedding_file(path: Path, rows: int | None, hidden: int | None) -> EmbeddingFile:
    """What the file is; `rows` and `hidden` as configured, or None. PackageError: no table of that shape."""
    if path.suffix.lower() == ".npy":
        values = _npy(path)
        dtype = next(name for name, numpy in DTYPES.items() if numpy == values.dtype)
        return EmbeddingFile(path, dtype, values.nbytes, values.shape[0], values.shape[1]).with_shape(rows, hidden)
    size, name = path.stat().st_size, path.name.lower()
    unnamed = "fp32" if rows and hidden and size == 4 * rows * hidden else "bf16"
    dtype = next((dtype for pattern, dtype in NAMED if pattern.search(name)), unnamed)
    return EmbeddingFile(path, dtype, size).with_shape(rows, hidden)


def _npy(path: Path) -> np.ndarray:
    """The values of a .npy file, mapped, as [vocab, hidden]; bf16 (which NumPy does not know) as uint16."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        raise PackageError(f"{path} is not a sound .npy file ({error}): {AGAIN}") from None
    if isinstance(values, np.memmap) and isinstance(mapped := values._mmap, mmap.mmap):  # type: ignore[attr-defined]
        mapped.madvise(mmap.MADV_RANDOM)
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.dtype in (np.dtype("V2"), np.dtype("<u2"), np.dtype("<i2")):
        values = values.view(np.uint16)
    if values.ndim != 2 or values.dtype not in DTYPES.values() or 0 in values.shape:
        raise PackageError(
            f"{path} holds {values.dtype} {list(values.shape)}, not a table of bf16, float16 or float32 rows: {AGAIN}"
        )
    return np.asarray(values)

"""Which shared libraries a shared library asks for, read from its file (ELF, 64 bits, little-endian)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

PT_LOAD, PT_DYNAMIC = 1, 2
DT_NEEDED, DT_STRTAB = 1, 5
MAX_STRING = 256


def needed_libraries(path: Path) -> list[str]:
    """The names under DT_NEEDED, in order. ValueError: not such a file, or a damaged one; OSError: not readable."""
    with open(path, "rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path} is no 64-bit shared library")
        start, (size, count) = struct.unpack_from("<Q", header, 32)[0], struct.unpack_from("<HH", header, 54)
        file.seek(start)
        table = file.read(size * count)
        if size < 56 or len(table) < size * count:
            raise ValueError(f"{path} is cut short")
        segments = [struct.unpack_from("<IIQQQQ", table, at) for at in range(0, size * count, size)]
        entries = _dynamic(file, segments)
        tables = [value for tag, value in entries if tag == DT_STRTAB]
        if not tables:
            return []
        names = []
        for tag, value in entries:
            if tag == DT_NEEDED:
                file.seek(_offset(segments, tables[0]) + value)
                names.append(file.read(MAX_STRING).split(b"\0")[0].decode(errors="replace"))
        return names


def _dynamic(file: BinaryIO, segments: list[tuple[int, ...]]) -> list[tuple[int, int]]:
    """The dynamic section as (tag, value)."""
    for kind, _, offset, _, _, size in segments:
        if kind == PT_DYNAMIC:
            file.seek(offset)
            data = file.read(size)
            return list(struct.iter_unpack("<qQ", data[: len(data) // 16 * 16]))
    return []


def _offset(segments: list[tuple[int, ...]], address: int) -> int:
    """Where the byte that will be at `address` lies in the file."""
    for kind, _, offset, start, _, size in segments:
        if kind == PT_LOAD and start <= address < start + size:
            return offset + address - start
    raise ValueError("the dynamic section points nowhere")

"""Small files as they come with a model: JSON objects, and the Git LFS pointers that a clone without LFS has instead of
files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .errors import PackageError

MAX_POINTER = 1024  # bytes; pointers have about 130
POINTER_START = b"version https://git-lfs"


def lfs_pointer_size(path: str | os.PathLike[str]) -> int | None:
    """The size in bytes of the real file if `path` is a Git LFS pointer (0: it does not say), else None. OSError."""
    if os.stat(path).st_size > MAX_POINTER:
        return None
    with open(path, "rb") as file:
        text = file.read(MAX_POINTER)
    if not text.startswith(POINTER_START):
        return None
    sizes = [line[5:] for line in text.splitlines() if line.startswith(b"size ") and line[5:].isdigit()]
    return int(sizes[0]) if sizes else 0


def check_not_pointer(path: Path) -> None:
    """Raises PackageError if the file is a Git LFS pointer instead of its content, or cannot be read."""
    try:
        size = lfs_pointer_size(path)
    except OSError as error:
        raise PackageError(f"{path} cannot be read ({error.strerror}): correct its name or permissions") from None
    if size is not None:
        raise PackageError(
            f"{path} is a Git LFS pointer ({path.stat().st_size} bytes) in place of the file itself ({size} bytes): "
            "run `git lfs pull` in its directory"
        )


def read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object in `path`; `default`, if given, where there is no such file. Raises PackageError otherwise."""
    if default is not None and not path.exists():
        return default
    if not path.is_file():
        what = "is a directory, not a file" if path.exists() else "is missing"
        raise PackageError(f"{path} {what}: this is not a complete model directory, download it again")
    check_not_pointer(path)
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{path} is not valid JSON ({error}): download it again") from None
    if not isinstance(value, dict):
        raise PackageError(f"{path} does not hold a JSON object: download it again")
    return value

"""The list of token ids that comes with a trimmed head: row i of its logits is the token with the i-th id.

Heads are trimmed to fewer rows than the embedding has because they take a good part of a token's time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PackageError
from .package_config import AGAIN, PackageConfig
from .package_tree import Tree, matches

ID_KEY = re.compile(r"\w*(ids|id_map|token_map|vocab_map)(_path|_file)?", re.IGNORECASE)
NAMES = ("*ids*.json", "*ids*.npy", "*vocab*map*.json", "*token*map*.json", "*trim*.json", "*kept*.json", "*keep*.json")
FEWEST = 2  # ids; anything shorter is something else
MOST_BYTES = 16 << 20  # of a list: a million ids have 8


def find_id_list(tree: Tree, config: PackageConfig, places: Iterable[Path]) -> Path | None:
    """The file with the list: what the configuration names, else the one in the places (the layers' directory first)
    that is a list of whole numbers. PackageError: two such lists in one place."""
    for key, value in config.values.items():
        if ID_KEY.fullmatch(key) and isinstance(value, str) and (path := config.resolve(value)).is_file():
            return path
    for place in places:
        files = [path for path in tree.inside(place, "*.json", "*.npy") if _may_be_list(path)]
        found = [path for path in files if _numbers(path) is not None]
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise PackageError(f"{place} has several lists of token ids ({names}): keep the head's")
        if found:
            return found[0]
    return None


def read_id_list(path: Path, width: int, vocab: int) -> npt.NDArray[np.int32]:
    """Token ids int32 [width] of a head with `width` logits; all are below `vocab`, none is there twice. PackageError:
    the file is something else."""
    numbers = _numbers(path)
    if numbers is None or len(numbers) != width:
        raise PackageError(
            f"{path} holds {'no list of ids' if numbers is None else f'{len(numbers)} ids'}, the head gives {width}"
            f" logits: {AGAIN}"
        )
    ids = np.asarray(numbers, np.int64)
    if ids.min() < 0 or ids.max() >= vocab or len(np.unique(ids)) != width:
        raise PackageError(f"{path} holds ids twice, or ids outside of the vocabulary of {vocab} tokens: {AGAIN}")
    return ids.astype(np.int32)


def _may_be_list(path: Path) -> bool:
    if not 0 < path.stat().st_size <= MOST_BYTES:
        return False
    if matches(path.name, *NAMES):
        return True
    with open(path, "rb") as file:
        return path.suffix == ".json" and file.read(64).lstrip().startswith(b"[")


def _numbers(path: Path) -> list[int] | np.ndarray | None:
    """The file's list of whole numbers, or None if it has none, or more than one."""
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            return array if array.ndim == 1 and array.dtype.kind in "iu" and len(array) >= FEWEST else None
        value: Any = json.loads(path.read_bytes())
    except (ValueError, EOFError, RecursionError):
        return None
    lists = [value] if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    found = [one for one in lists if isinstance(one, list) and len(one) >= FEWEST and all(type(n) is int for n in one)]
    return found[0] if len(found) == 1 else None

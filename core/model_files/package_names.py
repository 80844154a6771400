"""The names that a package answers to: its own, those of its directories, and its Hugging Face id if that is known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..files import lfs_pointer_size
from .package_config import PackageConfig

HUB = re.compile(r"(?:huggingface\.co|hf-mirror\.com|hf\.co)[/:]([\w.-]+/[\w.-]+?)(?=\.git\b|[^\w.-]|\.?$)")
HUB_FOLDER = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
IDENTITY = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{32,64}")
MAX_README = 1 << 16  # bytes


def package_aliases(names: Iterable[str | None], directories: Iterable[Path], config: PackageConfig) -> tuple[str, ...]:
    """Each name once, the best first. `names`: the package's own; `directories`: it and those it lies in or consists
    of, whose names and papers (README.md, a clone's origin) count."""
    found = [name for name in names if name]
    folders = list(directories)
    found += [folder.name for folder in folders if folder.name and not COMMIT.fullmatch(folder.name)]
    found += [name.replace("___", ".") for name in list(found) if "___" in name]  # how ModelScope's cache spells a dot
    known = {name.rpartition("/")[2].lower() for name in found}
    found += [identity for folder in folders for identity in _identities(folder, known)]
    if homepage := config.text("homepage"):
        found += HUB.findall(homepage)
    found += [name.rpartition("/")[2] for name in list(found) if IDENTITY.fullmatch(name)]
    unique: dict[str, str] = {}
    for name in found:
        unique.setdefault(name.lower(), name)
    return tuple(unique.values())


def hub_identity(directory: Path) -> str | None:
    """The Hugging Face id of a directory in the hub's cache (models--OWNER--NAME/snapshots/COMMIT)."""
    for part in (directory.name, *(parent.name for parent in list(directory.parents)[:3])):
        if match := HUB_FOLDER.fullmatch(part):
            return f"{match[1]}/{match[2]}"
    return None


def _identities(folder: Path, known: set[str]) -> Iterator[str]:
    """Ids that the papers in a directory tell: where it was cloned from, and in its README the page of the same name
    and the model it was made from."""
    if origin := HUB.search(_head(folder / ".git" / "config")):
        yield origin[1]
    text = _head(folder / "README.md")
    for identity in HUB.findall(text):
        if identity.rpartition("/")[2].lower() in known:
            yield identity
    front = re.match(r"\s*---\s*\n(.*?)\n---", text, re.DOTALL)
    base = re.search(r"^base_model:((?:[ \t]*-?[^\n:]*\n)+)", front[1] + "\n", re.MULTILINE) if front else None
    bases = re.findall(r"[\w.-]+/[\w.-]+", base[1]) if base else []
    yield from bases if len(bases) == 1 else []


def _head(path: Path) -> str:
    try:
        if not path.is_file() or lfs_pointer_size(path) is not None:
            return ""
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_README)
    except OSError:
        return ""

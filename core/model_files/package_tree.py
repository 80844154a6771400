"""The files of a model directory as they lie, nearest first; what is hidden (`.git`, `.cache`) is not part of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

MAX_DEPTH = 4  # directories below the given one: a hub cache's snapshots/<commit>/<package>/<layers>
MAX_FILES = 20_000  # a wrong directory (a home, a disk) is not read to its end


@dataclass(slots=True)
class Tree:
    """Files below `root` by their directory, both nearest first and then by name. Paths keep the names that were given;
    a directory that several links lead to is there once. `broken`: links to nothing."""

    root: Path
    files: dict[Path, list[Path]] = field(default_factory=dict)
    broken: list[Path] = field(default_factory=list)

    @classmethod
    def scan(cls, root: Path, depth: int = MAX_DEPTH) -> Tree:
        """Reads the names below `root`; OSError if that itself cannot be read, what else cannot be is left out."""
        tree, seen, level, count = cls(root), set[tuple[int, int]](), [root], 0
        for step in range(depth + 1):
            below: list[Path] = []
            for directory in level:
                if not _is_new(directory, seen):
                    continue
                try:
                    entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
                except OSError:
                    if step == 0:
                        raise
                    continue
                tree.files[directory] = tree._take(entries)
                count += len(entries)
                below += _directories(entries)
            if count > MAX_FILES:
                break
            level = below
        return tree

    def _take(self, entries: list[os.DirEntry[str]]) -> list[Path]:
        files = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                files.append(Path(entry.path))
            elif entry.is_symlink() and not os.path.exists(entry.path):
                self.broken.append(Path(entry.path))
        return files

    @property
    def directories(self) -> list[Path]:
        """The root and the directories below it."""
        return list(self.files)

    def __iter__(self) -> Iterator[Path]:
        for files in self.files.values():
            yield from files

    def inside(self, directory: Path, *patterns: str) -> list[Path]:
        """Files that lie directly in `directory` and match one of the patterns, whatever the case of their letters."""
        return [path for path in self.files.get(directory, []) if matches(path.name, *patterns)]

    def find(self, *patterns: str) -> list[Path]:
        """Files anywhere below the root that match one of the patterns."""
        return [path for path in self if matches(path.name, *patterns)]

    def children(self, directory: Path) -> list[Path]:
        """Directories directly below `directory`."""
        return [path for path in self.files if path.parent == directory and path != directory]

    def relative(self, path: Path) -> str:
        """`path` as a person would name it from the root."""
        return os.path.relpath(path, self.root)


def matches(name: str, *patterns: str) -> bool:
    """Whether a file name fits one of the shell patterns, whatever the case of its letters."""
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def _is_new(directory: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = directory.stat()
    except OSError:
        return False
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def _directories(entries: list[os.DirEntry[str]]) -> list[Path]:
    """Directories to go on with: real ones first, so that a link to one of them is the name that is left out."""
    found = [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    found = [entry for entry in found if entry.is_dir()]
    return [Path(entry.path) for entry in sorted(found, key=lambda entry: entry.is_symlink())]

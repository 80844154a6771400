"""What both sources share: failures after which a pull can go on, and checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import PackageError

BLOCK = 1 << 20


class CutOff(PackageError):
    """Fetching was cut off; what was fetched is kept, and pulling again goes on from there."""

    keeps = True


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_of(path: Path) -> str:
    """The id that git gives a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()

"""Who listens on a port, for the one who finds it taken."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

LISTENING = "0A"


def port_holder(port: int, proc: Path = Path("/proc")) -> str:
    """The process that listens there, as in "process 12 (python)"; empty where this user cannot tell."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port, proc)}
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):  # of another user, or ended meanwhile
            if any(os.readlink(entry) in sockets for entry in (folder / "fd").iterdir()):
                return f"process {folder.name} ({(folder / 'comm').read_text().strip()})"
    return ""


def _inodes(port: int, proc: Path) -> list[str]:
    found = []
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (proc / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.append(fields[9])
    return found

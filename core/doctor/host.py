"""The machine as the doctor sees it: its files, the user who asks, and the few programs that say what no file says."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


@dataclass(frozen=True, slots=True)
class User:
    """Who wants to use the card, where that is not the user of this process."""

    uid: int
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Host:
    """Answers for files below `root`; another root than / is a machine that somebody built from files.

    Paths are given without the leading slash ("proc/modules"). Nothing raises for a file that is missing or closed to
    this user: the answer is None or empty.
    """

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    user: User | None = None

    @property
    def real(self) -> bool:
        """Whether this is the machine that we run on."""
        return self.root == Path("/")

    def path(self, name: str | os.PathLike[str]) -> Path:
        """Where the file that the host calls `name` lies for us."""
        return self.root / str(name).lstrip("/")

    def exists(self, name: str) -> bool:
        """Whether there is such a file, directory or device."""
        try:
            return self.path(name).exists()
        except OSError:
            return False

    def text(self, name: str | os.PathLike[str]) -> str | None:
        """The file's text without white space around it; None where it cannot be read."""
        try:
            return self.path(name).read_text(errors="replace").strip("\0 \t\n")
        except OSError:
            return None

    def data(self, name: str, size: int) -> bytes:
        """The file's first `size` bytes; empty where it cannot be read."""
        try:
            with open(self.path(name), "rb", buffering=0) as file:
                return file.read(size) or b""
        except OSError:
            return b""

    def glob(self, pattern: str) -> list[str]:
        """Names (as the host says them) of what matches, sorted."""
        try:
            return sorted(f"/{path.relative_to(self.root)}" for path in self.root.glob(pattern))
        except OSError:
            return []

    def target(self, name: str) -> str | None:
        """What the symbolic link points to, as it is written; None where it is none or cannot be read."""
        try:
            return os.readlink(self.path(name))
        except OSError:
            return None

    def may_use(self, name: str) -> bool:
        """Whether the user may read and write the file."""
        if self.user is None:
            return os.access(self.path(name), os.R_OK | os.W_OK)
        try:
            status = self.path(name).stat()
        except OSError:
            return False
        if self.user.uid in (0, status.st_uid):
            return self.user.uid == 0 or status.st_mode & 0o600 == 0o600
        wanted = 0o060 if status.st_gid in self.user.groups else 0o006
        return status.st_mode & wanted == wanted

    def owner(self, name: str) -> str:
        """Owner, group and mode of a file, as in "root:video 0660"."""
        try:
            status = self.path(name).stat()
        except OSError:
            return "unknown"
        return f"{status.st_uid}:{status.st_gid} {stat.S_IMODE(status.st_mode):04o}"

    def is_root(self) -> bool:
        """Whether the user may look everywhere."""
        return (os.geteuid() if self.user is None else self.user.uid) == 0

    def run(self, *command: str, seconds: float = 5) -> str | None:
        """What a program prints; None where it is missing, fails or takes too long, and on a machine made of files."""
        if not self.real:
            return None
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    def free_bytes(self, name: str) -> int | None:
        """Bytes that this user may still write where `name` lies."""
        try:
            status = os.statvfs(self.path(name))
        except OSError:
            return None
        return status.f_bavail * status.f_frsize

    def clock_synchronised(self) -> bool | None:
        """Whether the kernel has been told that its clock follows a time server; None where it does not say."""
        if not self.real:
            return self.exists("run/systemd/timesync/synchronized")
        room = ctypes.create_string_buffer(512)  # struct timex, zeroed: asks, and sets nothing
        state = int(ctypes.CDLL(None).adjtimex(room))
        return None if state < 0 else state != TIME_ERROR

    def kernel(self) -> str:
        """Release of the running kernel, e.g. "6.12.25+rpt-rpi-2712"."""
        return self.text("proc/sys/kernel/osrelease") or "unknown"

    def board(self) -> str:
        """The board's name where the firmware gives one, as on a Raspberry Pi; else empty."""
        return self.text("proc/device-tree/model") or ""

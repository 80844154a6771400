"""How often what was tried lately, on disk: a process that ends to be started again must know that it did so before."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)

WINDOW_SECONDS = 3600.0
MOST = 200  # entries that are kept


def attempts_file(state_dir: Path | None, emulated: bool) -> Path | None:
    """Where attempts are counted: in `state_dir`, else in what systemd gives a service, else in the user's own place
    for such; those of an emulated card in memory only (None), where no directory is given."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if state_dir is None and given:
        state_dir = Path(given)
    if state_dir is None and not emulated:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        state_dir = Path(home) / "axpress"
    return None if state_dir is None else state_dir / "recovery.json"


class AttemptLog:
    """Names of what was tried, with the time of day. `path` None: kept in memory alone, as for a card that is emulated.

    A file that cannot be read counts as empty, one that cannot be written is told of once: recovery goes on."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._told = False
        self._entries = self._read()

    def _read(self) -> list[tuple[str, float]]:
        if self.path is None or not self.path.exists():
            return []
        try:
            document = json.loads(self.path.read_bytes())
            return [(str(name), float(at)) for name, at in document["attempts"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s does not say what was tried before (%s): counted from nothing", self.path, error)
            return []

    def add(self, name: str) -> None:
        """`name` is about to be tried."""
        self._entries = [*self._entries[-MOST + 1 :], (name, time.time())]
        if self.path is None:
            return
        temporary = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w") as file:
                json.dump({"attempts": self._entries}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            if not self._told:
                self._told = True
                log.warning("what is tried with the card cannot be noted in %s (%s): a process started after this one"
                            " does not know of it", self.path, error.strerror or error)  # fmt: skip

    def allow(self, name: str, most: int) -> bool:
        """Notes one more `name`, unless there were `most` of them lately."""
        if self.recent(name) >= most:
            return False
        self.add(name)
        return True

    def recent(self, name: str, seconds: float = WINDOW_SECONDS) -> int:
        """How often `name` was tried in the last `seconds`; what lies in the future was noted under a wrong clock, and
        counts."""
        since = time.time() - seconds
        return sum(entry == name and at >= since for entry, at in self._entries)

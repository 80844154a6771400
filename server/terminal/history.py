"""What was typed in earlier chats: a file in the user's state directory, a JSON string a line."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

KEPT = 1000


class History:
    """The messages of earlier chats, oldest first, and a file for those of later ones."""

    def __init__(self) -> None:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        self._file = state / "axpress" / "chat_history"
        self.lines: list[str] = []
        with suppress(OSError):
            self.lines = [_read(line) for line in self._file.read_text("utf-8", "replace").splitlines()]
        if len(self.lines) > 2 * KEPT:
            self.lines = self.lines[-KEPT:]
            with suppress(OSError):
                self._file.write_text("".join(map(_written, self.lines)), encoding="utf-8")

    def add(self, text: str) -> None:
        """One more, which other users cannot read; one like the last is left out. A disk that is full costs nothing
        but the memory of it."""
        if self.lines[-1:] == [text]:
            return
        self.lines.append(text)
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(_written(text))


def _written(text: str) -> str:
    return json.dumps(text) + "\n"


def _read(line: str) -> str:
    """A line as it was typed; files of earlier versions have it bare."""
    with suppress(ValueError):
        text = json.loads(line)
        if isinstance(text, str):
            return text
    return line

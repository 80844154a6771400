"""`axpress` on a terminal of its own, as a person has it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence

COMMAND = (sys.executable, "-m", "axpress.server")


class Terminal:
    """`axpress` with arguments on a terminal of 24 lines; use as a context manager."""

    def __init__(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        columns: int = 80,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._end, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        given = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **(environment or {})}
        self.process = subprocess.Popen(
            [*command, *arguments], stdin=side, stdout=side, stderr=side, env={**os.environ, **given},
            start_new_session=True, preexec_fn=_own_terminal,
        )  # fmt: skip
        os.close(side)
        self.text = ""
        """All that was shown."""
        self._seen = 0

    def type(self, text: str) -> None:
        """Keys, as the terminal sends them."""
        os.write(self._end, text.encode())

    def until(self, pattern: str, seconds: float = 60) -> str:
        """Reads until the pattern has been shown behind what earlier calls found; returns what came up to its end."""
        deadline = time.monotonic() + seconds
        while not (found := re.compile(pattern).search(self.text, self._seen)):
            assert time.monotonic() < deadline, f"not shown: {pattern}\n{self.text}"
            if select.select([self._end], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self._end, 4096).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"it ended before it had shown {pattern}\n{self.text}") from None
        shown, self._seen = self.text[self._seen : found.end()], found.end()
        return shown

    def ends(self, seconds: float = 60) -> int:
        """The exit code, once it has ended by itself; `text` has then all that it showed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self._end], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self._end, 4096).decode(errors="replace")
                except OSError:  # nobody has the terminal any more
                    return self.process.wait(seconds)
        raise AssertionError(f"it goes on\n{self.text}")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        os.close(self._end)


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # programs in the background are begun deaf to Ctrl-C

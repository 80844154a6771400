"""The server of `axpress run`: a process of its own on a free local port, which ends with the conversation."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from axpress.core.errors import AxpressError
from axpress.core.model_store import ModelStore

from .models_command import model_directory
from .terminal.connection import Connection, ServerError

LISTENING = re.compile(r"listening on (http://\S+)")
KEPT_LINES = 20
PR_SET_PDEATHSIG = 1


class ServerEnded(AxpressError):
    """The server ended before anybody could talk to it."""


class OwnServer:
    """Serves `directory` (None: as `axpress serve` without one) within a `with` block, and other models later: these
    are `Models` of a conversation. It ends with the block, or with this process."""

    model = "default"
    connection: Connection

    def __init__(self, directory: Path | None, options: Sequence[str]) -> None:
        self._directory, self._options = directory, options
        self._key = secrets.token_urlsafe(24)  # others on this machine have no business with it
        self._process: subprocess.Popen[str] | None = None
        self._said = deque[str](maxlen=KEPT_LINES)

    def __enter__(self) -> OwnServer:
        try:
            self._start(self._directory)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        ended = isinstance(error, ServerError) and self._has_ended()
        self._stop()
        if ended:
            raise _ended(self._said) from None

    def names(self) -> list[str]:
        """The models that were pulled."""
        return [model.name for model in ModelStore().models()]

    def switch(self, name: str, tell: Callable[[str], object]) -> None:
        """Ends the server and starts one with another model, or with the old one where that fails. OSError or
        AxpressError: it did."""
        directory = model_directory(Path(name))[0]
        self._stop()
        try:
            self._start(directory)
            if self._status(tell) != "ready":
                raise _ended(self._said)
        except BaseException:
            self._stop()
            self._start(self._directory)
            raise
        self._directory = directory

    def _status(self, tell: Callable[[str], object]) -> str:
        try:
            return str(self.connection.wait(tell).get("status"))
        except ServerError:
            return "ended"

    def _start(self, directory: Path | None) -> None:
        command = [sys.executable, "-m", "axpress.server", "serve", *([str(directory)] if directory else [])]
        environment = {name: value for name, value in os.environ.items() if name != "AXPRESS_API_KEYS"}
        self._process = process = subprocess.Popen(
            [*command, "--port", "0", *self._options],
            env=environment | {"AXPRESS_API_KEYS": f"run:{self._key}"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C stops an answer, not the server
            preexec_fn=_die_with_parent,
        )
        assert process.stderr is not None
        self._said = deque(maxlen=KEPT_LINES)
        for line in process.stderr:
            self._said.append(line)
            if found := LISTENING.search(line):
                self.connection = Connection(found[1], self._key)
                break
        else:
            raise _ended(self._said)
        # reads on, so that the server never waits for somebody to read its log
        threading.Thread(target=self._said.extend, args=(process.stderr,), daemon=True).start()

    def _has_ended(self) -> bool:
        """True where it has, or does at this moment."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
            return True
        return False

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _ended(said: Iterable[str]) -> ServerEnded:
    lines = [line.strip() for line in said if not LISTENING.search(line)]
    own = [line for line in lines if " error " in line or line.startswith("axpress: ")]
    return ServerEnded("the server has ended: " + ((own or lines)[-1] if lines else "it gave no reason"))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

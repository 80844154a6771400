"""`axpress run MODEL`: a server of its own on a free local port, and a conversation with it in this terminal."""

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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from axpress.core.errors import AxpressError

from .terminal_chat import ChatError
from .terminal_chat import run as chat

LISTENING = re.compile(r"listening on (http://\S+)")
KEPT_LINES = 20
PR_SET_PDEATHSIG = 1


class ServerEnded(AxpressError):
    """The server ended before anybody could talk to it."""


def run(directory: Path | None, options: Sequence[str], system: str | None, sampling: dict[str, Any]) -> int:
    """Serve `directory` (None: as `axpress serve` without one) and talk to it until Ctrl-D; returns the exit code."""
    key = secrets.token_urlsafe(24)  # others on this machine have no business with it
    with _serving(directory, options, key) as url:
        os.environ["AXPRESS_API_KEY"] = key
        return chat(url, "default", system, sampling)


@contextmanager
def _serving(directory: Path | None, options: Sequence[str], key: str) -> Iterator[str]:
    """The address of a server that ends with the block, or with this process."""
    command = [sys.executable, "-m", "axpress.server", "serve", *([str(directory)] if directory else [])]
    environment = {name: value for name, value in os.environ.items() if name != "AXPRESS_API_KEYS"}
    process = subprocess.Popen(
        [*command, "--port", "0", *options],
        env=environment | {"AXPRESS_API_KEYS": f"run:{key}"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C stops an answer, not the server
        preexec_fn=_die_with_parent,
    )
    assert process.stderr is not None
    try:
        said = deque[str](maxlen=KEPT_LINES)
        for line in process.stderr:
            said.append(line)
            if found := LISTENING.search(line):
                break
        else:
            raise _ended(said)
        # reads on, so that the server never waits for somebody to read its log
        threading.Thread(target=said.extend, args=(process.stderr,), daemon=True).start()
        try:
            yield found[1]
        except ChatError:
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
                raise _ended(said) from None
            raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()


def _ended(said: Iterable[str]) -> ServerEnded:
    lines = [line.strip() for line in said if not LISTENING.search(line)]
    own = [line for line in lines if " error " in line or line.startswith("axpress: ")]
    return ServerEnded("the server has ended: " + ((own or lines)[-1] if lines else "it gave no reason"))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

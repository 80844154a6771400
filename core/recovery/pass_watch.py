"""Who hangs in a call to the card while passes run: a watchdog on a thread of its own, for calls that keep no deadline.

The thread that hangs is left behind. Should it come back, `Abandoned` is raised in it before it touches anything:
somebody else has taken its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

POLL_SECONDS = 0.25


class Abandoned(BaseException):
    """The call came back after its thread was given up: another thread does its work now."""


class PassWatch:
    """To be entered around calls: `with watch.over("a pass", seconds): ...`, by one thread at a time.

    `on_hang(what, seconds)` is called on the watchdog's thread, once for each call that hangs."""

    def __init__(self, on_hang: Callable[[str, float], None]) -> None:
        self._on_hang = on_hang
        self._lock = threading.Lock()
        self._owner: int | None = None  # thread that is in a call
        self._what, self._seconds, self._until = "", 0.0, 0.0
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watches from now on."""
        self._thread = threading.Thread(target=self._main, name="axpress-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watches no longer."""
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def over(self, what: str, seconds: float) -> Self:
        """The call that is about to be made may take so long."""
        self._what, self._seconds = what, seconds
        return self

    def __enter__(self) -> None:
        self._until = time.monotonic() + self._seconds
        self._owner = threading.get_ident()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._lock:
            if self._owner != threading.get_ident():
                raise Abandoned(self._what) from None
            self._owner = None

    def _main(self) -> None:
        while not self._closed.wait(POLL_SECONDS):
            if self._owner is None or time.monotonic() < self._until:
                continue
            with self._lock:
                if self._owner is None or time.monotonic() < self._until:
                    continue
                self._owner = None
                what, seconds = self._what, self._seconds
            self._on_hang(what, seconds)

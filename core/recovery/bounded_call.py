"""Calls into the runtime that may never come back: each on a thread of its own, which is left behind when its time is
over. Nobody can end such a call; but everybody else goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import AxpressError, FailureKind

log = logging.getLogger(__name__)

T = TypeVar("T")
POLL_SECONDS = 0.02
Meanwhile = Callable[[], None]
"""Called again and again while somebody waits; what it raises ends the waiting."""


class CallHangs(AxpressError):
    """A call did not return in time, and was left behind."""

    kind = FailureKind.CARD_HUNG


def nothing() -> None:
    """What to do meanwhile, where there is nothing."""


def pause(seconds: float, meanwhile: Meanwhile = nothing) -> None:
    """Waits so long, or until `meanwhile` raises."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        meanwhile()
        time.sleep(min(POLL_SECONDS, left))


class BoundedCall(Generic[T]):
    """`work`, begun at once. `what` it is, for people. `discard` gets its result where nobody waits for it any more."""

    def __init__(self, what: str, work: Callable[[], T], discard: Callable[[T], object] | None = None) -> None:
        self.what = what
        self._work, self._discard = work, discard
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._left = False  # nobody waits for it
        self._done = threading.Event()
        threading.Thread(target=self._run, name=f"axpress-{what}"[:40], daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:
            self._error = error.with_traceback(None)  # its frames hold what is to be closed
        with self._lock:
            if not self._left:
                self._done.set()
                return
        self._put_away()

    def _put_away(self) -> None:
        try:
            if self._result and self._discard is not None:
                self._discard(self._result.pop())
        except Exception:
            log.exception("%s came back late, and what it left could not be put away", self.what)
        finally:
            self._done.set()

    @property
    def done(self) -> bool:
        """Whether it came back, however."""
        return self._done.is_set()

    def result(self, seconds: float, meanwhile: Meanwhile = nothing) -> T:
        """What `work` gave, or what it raised. CallHangs after `seconds`; it is then left behind, as it is where
        `meanwhile` raises."""
        try:
            self.wait(seconds, meanwhile)
        except BaseException as reason:
            if not self._leave(keep=isinstance(reason, CallHangs)):
                raise
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _leave(self, keep: bool) -> bool:
        """Nobody waits any longer. True: it came back in this very moment, and what it gave is to be kept, as told."""
        with self._lock:
            came = self._done.is_set()
            if came and keep:
                return True
            self._left = True
            self._done.clear()
        if came:  # on a thread: this may hang, too
            threading.Thread(target=self._put_away, name=f"axpress-{self.what}"[:40], daemon=True).start()
        return False

    def wait(self, seconds: float, meanwhile: Meanwhile = nothing) -> None:
        """Until it came back, also one that was left behind. CallHangs after `seconds`."""
        until = time.monotonic() + seconds
        while not self._done.wait(POLL_SECONDS):
            meanwhile()
            if time.monotonic() > until:
                raise CallHangs(f"{self.what} did not end within {seconds:g} s")

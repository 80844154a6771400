"""What is told while a model loads: how far it is, and when the card does not answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace

from ..errors import EngineClosed, FailureKind, RuntimeCallError, StepTimeout

log = logging.getLogger(__name__)

LOG_SECONDS = 5.0
PROBE_SECONDS = 60.0
"""For one pass or call of a probe: a card's first passes may be slow, none takes a tenth of this."""
LOAD_SECONDS, LOAD_BYTES_S = 120.0, 2e6
"""A model file may take so long and its bytes at this rate: a twentieth of what cards were seen to do."""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far the loading is. `stage` is "loading" or "probing"; sizes in MiB of the model files, times in seconds;
    `seconds_left` for the files alone, None before the first is loaded. `unanswered`: what the card has been asked to
    do and has not done by its deadline, "" if nothing."""

    stage: str
    files_done: int
    files: int
    mib_done: int
    mib: int
    seconds: float = 0.0
    seconds_left: float | None = None
    unanswered: str = ""

    def __str__(self) -> str:
        """For people, e.g. "12 of 29 files, 355 of 653 MiB, about 17 s left"."""
        text = f"{self.files_done} of {self.files} files, {self.mib_done} of {self.mib} MiB"
        if self.stage == "probing":
            text = "all files are loaded, the card is being probed"
        elif self.seconds_left is not None:
            text += f", about {self.seconds_left:.0f} s left"
        return f"{text}; the card does not answer: {self.unanswered}" if self.unanswered else text


Progress = Callable[[LoadProgress], None]
"""Called at each file, before the probes, and when the card does not answer; then on a thread of its own."""


class LoadWatch:
    """Counts files, tells `progress` and, every few seconds, the log; and watches over calls that may hang.

    `sizes`: bytes of each file, in their order."""

    def __init__(
        self, sizes: list[int], progress: Progress | None = None, *, probe_seconds: float = PROBE_SECONDS
    ) -> None:
        self._sizes, self._tell, self.timeout_ms = sizes, progress or (lambda _: None), round(probe_seconds * 1000)
        self._begun = self._logged = time.monotonic()
        self._lock = threading.Lock()
        self._now = self._count("loading", 0)

    def loading(self, done: int) -> None:
        """So many files are loaded."""
        self._put(self._count("loading", done))
        if time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            log.info("loading: %s", self._now)

    def probing(self) -> None:
        """All are."""
        self._put(self._count("probing", len(self._sizes)))

    def file(self, number: int, name: str) -> AbstractContextManager[None]:
        """To be entered around the loading of a file."""
        return self._watched(f"loading {name}", LOAD_SECONDS + self._sizes[number] / LOAD_BYTES_S)

    def __call__(self, what: str) -> AbstractContextManager[None]:
        """To be entered around a call of a probe; where the runtime says that it hangs, StepTimeout says `what`."""
        return self._watched(what, self.timeout_ms / 1000)

    def _count(self, stage: str, done: int) -> LoadProgress:
        seconds, loaded, total = time.monotonic() - self._begun, sum(self._sizes[:done]), sum(self._sizes)
        left = seconds / loaded * (total - loaded) if loaded else None
        return LoadProgress(stage, done, len(self._sizes), loaded >> 20, total >> 20, seconds, left)

    def _put(self, now: LoadProgress) -> None:
        with self._lock:
            self._now = now
        self._tell(now)

    @contextmanager
    def _watched(self, what: str, seconds: float) -> Iterator[None]:
        """Synchronous calls have no deadline, and nobody can end them: this one says that they hang."""
        begun, late = time.monotonic(), threading.Event()

        def hangs() -> None:
            late.set()
            log.error("the card has not answered for %.0f s: %s. Nobody can end this call", seconds, what)
            with suppress(EngineClosed):  # who wants the loading to stop cannot stop it from here
                self._put(replace(self._now, unanswered=what))

        timer = threading.Timer(seconds + 1, hangs)  # a call with a deadline of its own comes first
        timer.daemon = True
        timer.start()
        try:
            yield
        except RuntimeCallError as error:
            if error.kind is not FailureKind.CARD_HUNG:
                raise
            detail = f"the card did not answer within {seconds:g} s during {what}: reset it, or cut its power"
            raise StepTimeout(error.call, error.code, error.meaning, detail) from None
        finally:
            timer.cancel()
            timer.join()
            if late.is_set():
                log.warning("the card came back after %.0f s: %s", time.monotonic() - begun, what)
                self._put(replace(self._now, unanswered=""))

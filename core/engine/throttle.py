"""Fewer passes for a card that gets too warm: rests between them, or none at all for a while."""

from __future__ import annotations

import threading
import time

LONGEST_REST = 2.0
LOOK_SECONDS = 0.2  # paused: how often the engine looks at its queue


class Throttle:
    """`duty`: share of the time that passes may take, above 0 to 1; `paused`: no passes. Set by any thread, obeyed by
    the engine's between two passes."""

    def __init__(self) -> None:
        self.duty = 1.0
        self.paused = False
        self._change = threading.Event()
        self._began: float | None = None

    def set(self, duty: float, paused: bool) -> None:
        """Takes effect at once, in the middle of a rest too."""
        self.duty, self.paused = duty, paused
        self._change.set()

    def allow(self) -> bool:
        """Called before each pass: rests as long as is due after the one before. False: no pass may run now, look
        again."""
        if self.duty >= 1.0 and not self.paused:
            self._began = None
            return True
        self._change.clear()
        if self.paused:
            self._began = None
            self._change.wait(LOOK_SECONDS)
            return False
        now = time.monotonic()
        if self._began is not None:
            due = min((now - self._began) * (1 - self.duty) / self.duty, LONGEST_REST)
            if self._change.wait(due):
                return False
        self._began = time.monotonic()
        return True

"""Turns at a card that several engines share: one uses it at a time, in the order in which they came, so that nobody
waits for longer than one pass of each other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from .bounded_call import POLL_SECONDS, Meanwhile, nothing


class Turns:
    """Of one card. Each who uses it makes a `Turn`."""

    def __init__(self) -> None:
        self.change = threading.Condition()
        self.waiting: deque[Turn] = deque()
        self.holder: Turn | None = None


class Turn:
    """One user's. It is held by one thread at a time, and may be entered again by it."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._thread: int | None = None
        self._depth = 0

    @contextmanager
    def hold(self, meanwhile: Meanwhile = nothing) -> Iterator[None]:
        """The card is this one's until the block is left. `meanwhile` is called while others have it, and may raise."""
        self._take(meanwhile)
        try:
            yield
        finally:
            self._give()

    def inherit(self) -> None:
        """The thread that holds it is given up: the next one of the same user that asks has it."""
        with self._turns.change:
            if self._turns.holder is self:
                self._thread, self._depth = None, 0

    def drop(self) -> None:
        """Its user ends: nobody waits for a turn that was to be inherited."""
        turns = self._turns
        with turns.change:
            if turns.holder is self and self._thread is None:
                turns.holder = None
                turns.change.notify_all()

    def _take(self, meanwhile: Meanwhile) -> None:
        turns, me = self._turns, threading.get_ident()
        with turns.change:
            if turns.holder is self and self._thread in (me, None):
                self._thread, self._depth = me, self._depth + 1
                return
            turns.waiting.append(self)
            try:
                while turns.holder is not None or turns.waiting[0] is not self:
                    if not turns.change.wait(POLL_SECONDS):
                        turns.change.release()
                        try:
                            meanwhile()
                        finally:
                            turns.change.acquire()
            except BaseException:
                turns.waiting.remove(self)
                turns.change.notify_all()
                raise
            turns.waiting.popleft()
            turns.holder, self._thread, self._depth = self, me, 1

    def _give(self) -> None:
        turns = self._turns
        with turns.change:
            if turns.holder is not self or self._thread != threading.get_ident():
                return  # this thread was given up, and came back late
            self._depth -= 1
            if not self._depth:
                turns.holder = self._thread = None
                turns.change.notify_all()

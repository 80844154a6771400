"""Several cards that serve one model together, each with a thread of its own that makes every call to it: a thread is
bound to one card's context at a time, and a card that works must not keep another one waiting."""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from ..errors import AxpressError
from .runtime import Card

T = TypeVar("T")


class Task(Generic[T]):
    """Something that is done on a card's thread, and what came of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._done = threading.Event()
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """Does it; raises nothing."""
        try:
            self._result.append(self._work())
        except BaseException as error:
            self._error = error.with_traceback(None)  # its frames hold what may have to be closed
        self._done.set()

    def result(self) -> T:
        """What it gave, or what it raised, once it is done."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result[0]


class CardThread:
    """Does what it is given, in order, bound to `card`; once it was stopped, whoever gives it something does that
    himself. `failed`: time.monotonic() when something failed for the first time; `busy`: since then it has been at what
    it does, None: it has nothing to do."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.failed: float | None = None
        self.busy: float | None = None
        self._stopped = False
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=f"axpress-card-{card.device}", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], object]) -> None:
        """Does it soon. `work` raises nothing."""
        if self._stopped or threading.current_thread() is self._thread:
            work()
        else:
            self._tasks.put(work)

    def start(self, work: Callable[[], T]) -> Task[T]:
        """The same, of something that calls the card: ask what is returned for its result."""
        task = Task(lambda: self.bound(work))
        self.submit(task.run)
        return task

    def call(self, work: Callable[[], T]) -> T:
        """The same, and waits."""
        return self.start(work).result()

    def bound(self, work: Callable[[], T]) -> T:
        """Calls the card on the thread that this is. It is bound anew each time: a buffer that Python drops in between
        binds its own card."""
        self.busy = time.monotonic()
        try:
            self.card.bind_thread()
            return work()
        except AxpressError:
            self.failed = self.failed or time.monotonic()
            raise
        finally:
            self.busy = None

    def stop(self, seconds: float) -> None:
        """Ends after what it has; waits for that so long."""
        self._stopped = True
        self._tasks.put(None)
        self._thread.join(seconds)

    def _main(self) -> None:
        while (work := self._tasks.get()) is not None:
            work()


def _free_memory(told: dict[str, Any]) -> int:
    return int(told.get("free_cmm", 0))


class CardGroup:
    """Cards of one runtime, in the order of the blocks that they have. As a `CardHandle` it is one card: what it says
    of itself is that of the card that is worst off."""

    def __init__(
        self,
        library: str | os.PathLike[str],
        indexes: Sequence[int] = (),
        settings: dict[str, str] | None = None,
        *,
        device_ids: Sequence[int] = (),
    ) -> None:
        """Opens the cards with these indexes, or those that the runtime calls `device_ids`. Errors as for Card."""
        self.cards: list[Card] = []
        places: list[dict[str, Any]] = [{"device": index} for index in indexes]
        places += [{"device_id": number} for number in device_ids]
        try:
            for place in places:
                self.cards.append(Card(library, settings=None if self.cards else settings, **place))
        except BaseException:
            for card in reversed(self.cards):
                card.close()
            raise
        self.threads = [CardThread(card) for card in self.cards]
        self.library, self.emulated = self.cards[0].library, self.cards[0].emulated
        self.devices = tuple(card.device for card in self.cards)
        self.device = self.devices[0]
        self.closed = False
        self.has_async = all(card.has_async for card in self.cards)
        self._stopped = False

    @property
    def suspect(self) -> int:
        """Index of the card that failed first, or that has been busy for the longest time, as far as is known."""
        times = [thread.failed or thread.busy or math.inf for thread in self.threads]
        return times.index(min(times))

    def version(self) -> str:
        """Of the runtime."""
        return self.cards[0].version()

    def properties(self) -> dict[str, Any]:
        """As of one card: the memory of that which has least free, the temperature and loads of the busiest; `cards`
        has each."""
        each: list[dict[str, Any]] = [card.properties() for card in self.cards]
        worst: dict[str, Any] = min(each, key=_free_memory)
        for name in ("temperature_c", "npu_load", "cpu_load"):
            if name in worst:
                worst[name] = max(told[name] for told in each)
        return worst | {"cards": each}

    def bind_thread(self) -> None:
        """Nothing is called on the caller's thread; but a card that does not take one fails here."""
        for card in reversed(self.cards):
            card.bind_thread()

    def begin_close(self, settle_ms: int = 5000) -> None:
        """From here on failures do not stop the closing. Waits so long for what still runs."""
        if self._stopped:
            return
        self._stopped = True
        until = time.monotonic() + settle_ms / 1000
        for thread in self.threads:
            thread.stop(max(0.0, until - time.monotonic()))
        for card in self.cards:
            card.begin_close(settle_ms)

    def close(self) -> None:
        """Frees everything. BufferError while somebody holds a view of a pinned buffer."""
        self.begin_close()
        for card in reversed(self.cards):
            if not card.closed:
                card.bind_thread()
            card.close()
        self.closed = True

    def give_up(self) -> None:
        """Closes them after an error, which is told, and not what fails now."""
        with suppress(AxpressError, BufferError):  # the error's own traceback may hold a view
            self.close()

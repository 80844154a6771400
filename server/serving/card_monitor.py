"""How the card is: temperature, memory and load, asked for every few seconds on a thread of its own, since the call may
hang; and what is done about heat."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from axpress.core.engine.throttle import Throttle
from axpress.core.errors import AxpressError

from .card_reading import CardReading

log = logging.getLogger("axpress.server")

PERIOD = 5.0
STALE_SECONDS = 30.0
"""What was read longer ago is not told any more."""
HYSTERESIS = 3.0
LEAST_DUTY = 0.1
LITTLE_MEMORY = 32 << 20
"""Bytes of free memory below which caches are given back to the card: half of what a load leaves free."""
LOST_MEMORY = 64 << 20
"""Bytes of free memory fewer than after loading that are worth a word."""
EVENT_SECONDS = 600.0
"""What comes and goes is told once in so many seconds."""


class HeatPolicy:
    """From temperatures to how much of the time the card may work. `limits`: degrees at which a warning is logged,
    below which it is kept by fewer passes, and at which none runs. Each ends HYSTERESIS below where it began."""

    def __init__(self, limits: tuple[float, float, float]) -> None:
        self.limits = limits
        self.level = 0
        self.duty = 1.0
        self._last: float | None = None

    @property
    def paused(self) -> bool:
        """Whether no pass may run: until it is cooler than where passes become fewer."""
        return self.level == 3

    def see(self, temperature: float) -> bool:
        """Takes a temperature; True where the level changed: 0 cool, 1 warm, 2 throttled, 3 paused."""
        was = self.level
        reached = sum(temperature >= limit for limit in self.limits)
        if reached > self.level:
            self.level = reached
        elif self.level == 3:
            if temperature < self.limits[1]:
                self.level = 2
        elif self.level and temperature < self.limits[self.level - 1] - HYSTERESIS:
            self.level -= 1
        # as warm as it will be at the look after the next one, should it go on so
        soon = temperature + 2 * max(0.0, temperature - (self._last if self._last is not None else temperature))
        self._last = temperature
        if soon >= self.limits[1]:
            self.duty = max(LEAST_DUTY, self.duty * 0.75)
        elif soon < self.limits[1] - HYSTERESIS:
            self.duty = min(1.0, self.duty + 0.05)
        return self.level != was


LEVELS = ("cool again", "warm", "hot: fewer passes", "too hot: no passes until it is cooler")


class CardMonitor:
    """Reads the card and sets the engine's throttle. `ask` reads; it may hang, and takes only this thread with it.
    `give_up_memory` gives some of the card's memory back, False where none is left to give; see Engine."""

    def __init__(
        self,
        ask: Callable[[], CardReading],
        throttle: Throttle,
        limits: tuple[float, float, float],
        give_up_memory: Callable[[], bool] = lambda: False,
        steady: bool = True,
        name: str = "the card",
    ) -> None:
        """`steady`: nobody of ours takes memory or gives it back, so that a change of it is worth a word. `name`: what
        the card is called in the log."""
        self._steady, self._name = steady, name
        self._ask, self._throttle, self._give_up_memory = ask, throttle, give_up_memory
        self.policy = HeatPolicy(limits)
        self._latest: CardReading | None = None
        self._most_free = 0
        self._first: CardReading | None = None
        self._told: dict[str, float] = {}  # by event: when it was last told
        self._on: set[str] = set()  # events that go on
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="axpress-monitor", daemon=True)

    @property
    def latest(self) -> CardReading | None:
        """The last reading that is not too old."""
        reading = self._latest
        return reading if reading is not None and monotonic() - reading.at < STALE_SECONDS else None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float = 2.0) -> None:
        """Ask no more; waits for a question that is on its way, but not for long."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def look(self) -> None:
        """One reading, and what follows from it."""
        reading = self._ask()
        self._latest = reading
        self._first = self._first or reading
        if reading.temperature_c is not None:
            self._watch_heat(reading.temperature_c)
        if reading.free_cmm is not None and self._steady:
            self._watch_memory(reading.free_cmm)
        first, now = ((r.link_gts or 0.0, r.link_width or 0) for r in (self._first, reading))
        slower = bool(reading.link_gts) and (now[0] < first[0] or now[1] < first[1])
        self._event(
            slower, "the card's link is at %g GT/s x%d, and was at %g GT/s x%d: reseat card and cable", *now, *first
        )
        self._event(bool(reading.undervoltage), "the machine has too little voltage: the card may drop out; see its"
                    " power supply")  # fmt: skip
        self._event(bool(reading.throttled), "the machine runs slower, for its heat or its voltage")

    def _watch_heat(self, temperature: float) -> None:
        if self.policy.see(temperature):
            weight = logging.WARNING if self.policy.level else logging.INFO
            log.log(weight, "%s is at %.0f C: %s", self._name, temperature, LEVELS[self.policy.level])
        duty = self.policy.duty
        if (duty, self.policy.paused) != (self._throttle.duty, self._throttle.paused):
            self._throttle.set(duty, self.policy.paused)

    def _watch_memory(self, free: int) -> None:
        self._most_free = self._most_free or free
        lost = self._most_free - free
        if lost > LOST_MEMORY:
            log.warning(
                "%s has %d MiB less free memory than before: another program, or a leak", self._name, lost >> 20
            )
            self._most_free = free
        little = free < LITTLE_MEMORY
        given = little and self._give_up_memory()
        self._event(given, "the card has only %d MiB of free memory: a bank of cached conversations is given back",
                    free >> 20)  # fmt: skip
        self._event(little and not given, "the card has only %d MiB of free memory, and nothing can be given back:"
                    " close other programs on the card", free >> 20)  # fmt: skip

    def _event(self, on: bool, text: str, *values: float) -> None:
        """Tells what begins, unless that was told not long ago."""
        if on and text not in self._on and monotonic() - self._told.get(text, -EVENT_SECONDS) >= EVENT_SECONDS:
            self._told[text] = monotonic()
            log.warning(text.replace("the card", self._name), *values)
        (self._on.add if on else self._on.discard)(text)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self.look()
            except AxpressError as exc:
                log.debug("the card was not read: %s", exc)
            except Exception:
                log.exception("unexpected: the card could not be read")
                return
            self._ending.wait(PERIOD)

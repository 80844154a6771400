"""How the card is: temperature, memory and load, asked for every few seconds on a thread of its own, since the call may
hang; and what is done about heat."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from axpress.core.engine.throttle import Throttle
from axpress.core.errors import AxpressError

log = logging.getLogger("axpress.server")

PERIOD = 5.0
STALE_SECONDS = 30.0
"""What was read longer ago is not told any more."""
TOOL_SECONDS = 6.0
TOOLS = ("axcl-smi", "/usr/bin/axcl/axcl-smi")
HYSTERESIS = 3.0
LEAST_DUTY = 0.1
LOST_MEMORY = 64 << 20
"""Bytes of free memory fewer than after loading that are worth a word."""


@dataclass(frozen=True, slots=True)
class CardReading:
    """What a card said of itself; memory in bytes. `npu_load`: as the runtime reports it, percent as far as is seen;
    None: not told. `source`: runtime, or axcl-smi."""

    source: str
    at: float
    temperature_c: float
    total_cmm: int
    free_cmm: int
    npu_load: int | None = None


def of_runtime(properties: dict[str, Any]) -> CardReading | None:
    """From `Card.properties`; None where it does not tell a temperature."""
    if "temperature_c" not in properties:
        return None
    names = ("temperature_c", "total_cmm", "free_cmm", "npu_load")
    return CardReading("runtime", monotonic(), *(properties[name] for name in names))


def of_tool(index: int) -> CardReading | None:
    """From the vendor's program, of the card that is listed at `index`; None where there is none, or it does not
    tell."""
    tool = next((tool for tool in TOOLS if shutil.which(tool)), None)
    if tool is None:
        return None
    said = ""
    for what in ("--temp", "--cmm"):
        try:
            command = [tool, "info", what, "-d", str(index)]
            said += subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS).stdout
        except (OSError, subprocess.TimeoutExpired):
            return None
    return read_tool(said)


def read_tool(said: str) -> CardReading | None:
    """What `axcl-smi info --temp` and `--cmm` print: millidegrees and KiB."""
    numbers = {
        name: re.search(pattern + r"\s*:\s*(\d+)", said, re.IGNORECASE)
        for name, pattern in (("temperature", "temperature"), ("total", "CMM Total"), ("free", "CMM Remain"))
    }
    found = {name: int(match[1]) for name, match in numbers.items() if match}
    if len(found) < 3:
        return None
    return CardReading("axcl-smi", monotonic(), found["temperature"] / 1000, found["total"] << 10, found["free"] << 10)


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
        # as warm as it will be at the next look, should it go on so
        soon = temperature + max(0.0, temperature - (self._last if self._last is not None else temperature))
        self._last = temperature
        if soon >= self.limits[1]:
            self.duty = max(LEAST_DUTY, self.duty * 0.75)
        elif soon < self.limits[1] - HYSTERESIS:
            self.duty = min(1.0, self.duty + 0.05)
        return self.level != was


LEVELS = ("cool again", "warm", "hot: fewer passes", "too hot: no passes until it is cooler")


class CardMonitor:
    """Reads the card and sets the engine's throttle. `ask` reads; it may hang, and takes only this thread with it."""

    def __init__(
        self, ask: Callable[[], CardReading | None], throttle: Throttle, limits: tuple[float, float, float]
    ) -> None:
        self._ask, self._throttle = ask, throttle
        self.policy = HeatPolicy(limits)
        self._latest: CardReading | None = None
        self._most_free = 0
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
        if reading is None:
            return
        self._latest = reading
        if self.policy.see(reading.temperature_c):
            weight = logging.WARNING if self.policy.level else logging.INFO
            log.log(weight, "the card is at %.0f C: %s", reading.temperature_c, LEVELS[self.policy.level])
        duty = self.policy.duty
        if (duty, self.policy.paused) != (self._throttle.duty, self._throttle.paused):
            self._throttle.set(duty, self.policy.paused)
        self._watch_memory(reading)

    def _watch_memory(self, reading: CardReading) -> None:
        self._most_free = self._most_free or reading.free_cmm
        lost = self._most_free - reading.free_cmm
        if lost > LOST_MEMORY:
            log.warning("the card has %d MiB less free memory than before: another program, or a leak", lost >> 20)
            self._most_free = reading.free_cmm

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

"""A card in use, and who watches it: its temperature, its memory, and whether it is there at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from axpress.core.engine.throttle import Throttle
from axpress.core.errors import AxpressError, EngineClosed, FailureKind

from ..settings import Settings
from .card_monitor import CardMonitor
from .card_reading import CardReader, CardReading

if TYPE_CHECKING:
    from axpress.core.device.backend import CardHandle
    from axpress.core.engine.engine import Engine


class WatchedCard:
    """One card. `card` gives it: it may become another one, and be closed; `engines` those that are on it."""

    def __init__(
        self,
        card: Callable[[], CardHandle],
        engines: Callable[[], Sequence[Engine]],
        throttle: Throttle,
        settings: Settings,
        name: str = "",
    ) -> None:
        """`name`: which of several it is; empty: the only one."""
        self.name = name
        self._card, self._engines = card, engines
        self._reader = CardReader(card, self._place)
        said = f"card {name}" if name else "the card"
        self.monitor = CardMonitor(
            self.read, throttle, settings.heat, self._give_up_memory, not settings.on_demand, said
        )

    def read(self) -> CardReading:
        """On the monitor's thread. A card that is lost is the engine's to bring back."""
        try:
            reading = self._reader.read()
        except AxpressError as exc:
            if exc.kind is FailureKind.CARD_LOST and not self._card().closed:  # closed: it is on its way
                for engine in self._engines()[:1]:
                    engine.report_trouble(exc.kind, f"the card's monitor: {exc}")
            raise
        if self._card().closed or any(engine.state != "ready" for engine in self._engines()):
            raise EngineClosed("a card that is being brought back, or closed, tells nonsense")
        return reading

    @property
    def report(self) -> dict[str, Any] | None:
        """What it said not long ago, for /health."""
        card = self.monitor.latest
        return None if card is None else {f.name: getattr(card, f.name) for f in fields(card) if f.name != "at"}

    @property
    def duty(self) -> float:
        """Share of time in which it may work, for its heat."""
        policy = self.monitor.policy
        return 0.0 if policy.paused else policy.duty

    def _give_up_memory(self) -> bool:
        """On the monitor's thread: one bank of one model, False where none has more than one."""
        return any(engine.give_up_memory() for engine in self._engines())

    def _place(self) -> int:
        """Where the vendor's program lists the card."""
        from axpress.core.recovery.firmware import place_of

        card = self._card()
        # PyAXEngine's card has no library, and its number is its place
        return place_of(card.library, card.device) if card.library else card.device

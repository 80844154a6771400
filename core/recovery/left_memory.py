"""Whether the card has the memory free that it has when idle, before a model is loaded: a process that was killed may
have left some of it occupied, or still be at its end.

What is free on an idle card is remembered in the state directory, by card, as the most that was ever seen there."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from ..device.backend import CardHandle
from ..device.runtime import describe_code
from ..errors import RuntimeCallError
from .attempts import AttemptLog
from .bounded_call import Meanwhile, nothing, pause

log = logging.getLogger(__name__)

FILE = "idle_memory.json"
SLACK = 64 << 20
"""Bytes fewer than that are nobody's."""
WAIT_SECONDS = 20.0
BUSY = 0x80300106  # device: busy


class LeftMemory:
    """To be asked with each card that is opened for the first load. `holders`: who else has the card open, in words;
    empty: nobody; None: that cannot be told."""

    def __init__(
        self, attempts: AttemptLog, max_reboots: int, holders: Callable[[], str | None], meanwhile: Meanwhile = nothing
    ) -> None:
        self._path = attempts.path and attempts.path.with_name(FILE)
        self._attempts, self._max_reboots = attempts, max_reboots
        self._holders, self._meanwhile = holders, meanwhile
        self._waited = False
        self._reboots = 0

    def check(self, card: CardHandle) -> None:
        """Waits until the memory is free that the idle card has. RuntimeCallError where it stays occupied by nobody:
        a reboot of the firmware then helps. After that, or where others hold it, what there is has to do."""
        free, name = self._free(card), str(card.device)
        idle = self._known().get(name, 0)
        if free is None:
            return
        if free + SLACK < idle and not self._waited:
            free = self._wait(card, free, idle)
        if free + SLACK < idle and self._helps_to_reboot():
            text = f"{idle - free >> 20} MiB of the card's memory are held by a process that is gone"
            raise RuntimeCallError("waiting for free memory", BUSY, describe_code(BUSY), text)
        self._remember(name, free if self._reboots else max(free, idle))

    def _wait(self, card: CardHandle, free: int, idle: int) -> int:
        self._waited = True
        begun = time.monotonic()
        holders = self._holders()
        who = f"by {holders}" if holders else "by a process that ended, or is about to"
        log.warning("%d MiB of the card's memory are held %s: waiting for it, up to %g s", idle - free >> 20, who,
                    WAIT_SECONDS)  # fmt: skip
        while free + SLACK < idle and time.monotonic() - begun < WAIT_SECONDS:
            pause(0.25, self._meanwhile)
            free = self._free(card) or 0
        if free + SLACK >= idle:
            log.info("it is free again after %.1f s", time.monotonic() - begun)
        return free

    def _helps_to_reboot(self) -> bool:
        """Not where somebody lives who may hold it, nor again and again."""
        if self._reboots >= 2 or self._holders() != "" or self._attempts.recent("reboot") >= self._max_reboots:
            log.warning("the card's memory stays held: loading with what is free")
            return False
        self._reboots += 1
        return True

    def _free(self, card: CardHandle) -> int | None:
        free: int | None = card.properties().get("free_cmm")
        return free

    def _known(self) -> dict[str, int]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            return {str(name): int(free) for name, free in json.loads(self._path.read_bytes()).items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("%s does not say how much memory the idle card has (%s)", self._path, error)
            return {}

    def _remember(self, name: str, free: int) -> None:
        known = self._known()
        if self._path is None or known.get(name) == free:
            return
        temporary = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(known | {name: free}))
            temporary.replace(self._path)
        except OSError as error:
            log.debug("the memory of the idle card is not remembered: %s", error)

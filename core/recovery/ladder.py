"""What is tried with a card that fails, mildest first: each rung under its own deadline, with growing pauses.

    clear     zeros in all caches, where it gave nonsense: a NaN in a row survives every mask
    reopen    everything is freed and loaded again, in this process
    reboot    its firmware is started again; seconds until it is listed
    spare     another card of the list takes over
    exit      nothing helped: the process ends for its supervisor to start it again; after `max_exits` of that in an
              hour it stays, and says that power must be cut

A rung is believed only after a real pass. Every call may hang: see bounded_call.py."""

from __future__ import annotations

import ctypes
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from ..device.card_models import CardModels, OpenCard
from ..device.load_watch import LoadProgress
from ..device.runtime import device_ids
from ..errors import AxpressError, CardBeyondHelp, EngineClosed, FailureKind, RuntimeUnavailable
from .attempts import AttemptLog
from .bounded_call import POLL_SECONDS, BoundedCall, CallHangs, Meanwhile, nothing, pause
from .firmware import reboot_firmware

log = logging.getLogger(__name__)

T = TypeVar("T")
REBOOT_SECONDS = 30.0  # for the call or the tool that asks for it


class Rung(Enum):
    """What can be tried."""

    CLEAR = "clear"
    REOPEN = "reopen"
    REBOOT = "reboot"
    SPARE = "spare"
    EXIT = "exit"


_TELLS = {
    Rung.CLEAR: "clearing its caches",
    Rung.REOPEN: "loading the model again",
    Rung.REBOOT: "rebooting the card's firmware",
    Rung.SPARE: "handing over to another card",
    Rung.EXIT: "ending, to be started again",
}


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    """How patient recovery is. Times in seconds.

    `backoff`: pause before the second try, doubled with each further one up to `max_backoff`. `healthy_passes`: so many
    passes after a recovery mean that it held. `settle`: for a card to be freed; `enumerate`: for a rebooted one to
    come back (cards take up to 15 s)."""

    backoff: float = 1.0
    max_backoff: float = 30.0
    healthy_passes: int = 32
    settle: float = 20.0
    enumerate: float = 40.0
    check: float = 10.0
    max_reboots: int = 6
    """An hour."""
    max_exits: int = 3
    """An hour."""


@dataclass(frozen=True, slots=True)
class RecoveryStatus:
    """What is being done about a card, for people and /health. `since`, `next_try`: time.time(); `next_try` None: being
    tried now."""

    reason: str
    kind: FailureKind
    since: float
    trying: str
    next_try: float | None = None


def _give_back_memory() -> None:
    """Each try ran on a thread of its own, and glibc keeps what such threads freed, for each some megabytes: after some
    tens of recoveries that is as much as everything else."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class Ladder:
    """Recovery of a card. `status` and the counters may be read by any thread; `climb` is for an engine's.

    `faults` by kind and `rungs` that helped, by name, since the process began."""

    def __init__(self, on_card: CardModels, policy: RecoveryPolicy, attempts: AttemptLog) -> None:
        self.on_card, self.policy, self.attempts = on_card, policy, attempts
        self.status: RecoveryStatus | None = None
        self.faults: Counter[str] = Counter()
        self.rungs: Counter[str] = Counter()
        self.in_use: Callable[[], Collection[int]] = tuple  # cards that are no spares: other engines are on them
        self._relapses = 0
        self._passes_then = 0
        self._pending: list[BoundedCall[Any]] = []  # calls that did not come back
        self._stopped = False

    def climb(self, failure: str, kind: FailureKind, num_passes: int, meanwhile: Meanwhile = nothing) -> None:
        """Tries until the card computes again. `num_passes` so far: whether the recovery before this one held.
        `meanwhile`: see BoundedCall.

        Raises CardBeyondHelp, or what `meanwhile` raises. The calling thread must bind itself to the card then."""
        self.faults[kind.value] += 1
        begun, held = time.monotonic(), num_passes - self._passes_then >= self.policy.healthy_passes
        self._relapses = 0 if held or not self.rungs else self._relapses + 1
        self._passes_then = num_passes
        since = time.time()
        log.error("the card failed (%s): %s", kind.value, failure)
        last = failure
        for tries, rung in enumerate(self._rungs(kind)):
            self._pause(rung, tries + self._relapses, RecoveryStatus(failure, kind, since, _TELLS[rung]), meanwhile)
            self.attempts.add(rung.value)
            try:
                self._try(rung, meanwhile)
            except (AxpressError, BufferError, OSError) as error:
                last = str(error)
                log.error("%s did not help: %s", _TELLS[rung], error)
                continue
            self.rungs[rung.value] += 1
            self.status = None
            _give_back_memory()
            log.warning("the card works again after %.1f s, by %s", time.monotonic() - begun, _TELLS[rung])
            return
        self.status = RecoveryStatus(failure, kind, since, "nothing more")
        text = f"{failure}; nothing helped, the last try ended with: {last}"
        raise CardBeyondHelp(text, kind, self.may_exit())

    def may_exit(self) -> bool:
        """Whether the process should end, to be started anew: what could not be mended in it may be in another. Not
        again and again."""
        return self.attempts.allow(Rung.EXIT.value, self.policy.max_exits)

    def stop(self, seconds: float) -> bool:
        """The last engine ends: what is being loaded stops before its next file. Whether all calls came back in
        time."""
        self._stopped = True
        until = time.monotonic() + seconds
        for call in self._pending:
            while not call.done and time.monotonic() < until:
                time.sleep(POLL_SECONDS)
        return all(call.done for call in self._pending)

    def resume(self) -> None:
        """An engine begins, after the last one ended perhaps."""
        self._stopped = False

    # ---- what is tried ----

    def _rungs(self, kind: FailureKind) -> Iterator[Rung]:
        relapses = self._relapses
        if kind is FailureKind.BAD_OUTPUT and relapses < 4:  # as often as a prompt is tried that itself gives nonsense
            yield Rung.CLEAR
        if relapses < 3:
            yield from (Rung.REOPEN, Rung.REOPEN)
        if relapses < 6:
            for _ in range(2):
                if self.attempts.recent(Rung.REBOOT.value) < self.policy.max_reboots:
                    yield Rung.REBOOT
        if relapses < 9:
            yield Rung.SPARE

    def _pause(self, rung: Rung, tries: int, status: RecoveryStatus, meanwhile: Meanwhile) -> None:
        if tries:
            seconds = min(self.policy.backoff * 2 ** (tries - 1), self.policy.max_backoff)
            self.status = RecoveryStatus(status.reason, status.kind, status.since, status.trying, time.time() + seconds)
            pause(seconds, meanwhile)
        self.status = status

    def _try(self, rung: Rung, meanwhile: Meanwhile) -> None:
        if rung is Rung.CLEAR:
            check_ms = round(self.policy.check * 1000)
            self._call("clearing the caches", lambda: self.on_card.clear(check_ms), self.policy.check, meanwhile)
        elif rung is Rung.REOPEN:
            self._close(meanwhile)
            self._open(None, meanwhile)
        elif rung is Rung.REBOOT:
            self._reboot(meanwhile)
        elif rung is Rung.SPARE:
            self._hand_over(meanwhile)

    def _close(self, meanwhile: Meanwhile) -> None:
        for call in self._pending:  # one of them may be about to close it
            call.wait(self.policy.settle, meanwhile)
        self._pending = []
        self._call("freeing the card", lambda: self.on_card.close(1000), self.policy.settle, meanwhile)

    def _open(self, device_id: int | None, meanwhile: Meanwhile) -> None:
        on_card = self.on_card

        def load() -> OpenCard:
            return on_card.load_again(device_id, round(self.policy.check * 1000), self._loads)

        seconds = 30.0 + 4 * on_card.load_seconds
        on_card.adopt(self._call("loading the model", load, seconds, meanwhile, OpenCard.close))

    def _loads(self, _: LoadProgress) -> None:
        if self._stopped:
            raise EngineClosed("the server is shutting down")

    def _reboot(self, meanwhile: Meanwhile) -> None:
        card = self.on_card.card
        library, emulated = card.library, card.emulated
        try:
            self._close(meanwhile)
        except CallHangs as error:
            log.error("%s: the reboot may end that", error)
        for device in card.devices:
            reboot = partial(reboot_firmware, library, device, emulated)
            self._call("rebooting the card", reboot, REBOOT_SECONDS, meanwhile)
        self._close(meanwhile)
        until, between = time.monotonic() + self.policy.enumerate, 0.25
        while True:
            try:
                self._open(card.device, meanwhile)
                return
            except AxpressError as error:
                if error.kind is not FailureKind.CARD_LOST or time.monotonic() + between > until:
                    raise
            pause(between, meanwhile)  # a card that is not listed yet; each try costs the driver something
            between *= 2

    def _hand_over(self, meanwhile: Meanwhile) -> None:
        card = self.on_card.card
        library = card.library
        listed = self._call("listing the cards", lambda: device_ids(library), self.policy.check, meanwhile)
        others = [number for number in listed if number not in card.devices and number not in self.in_use()]
        if not others:
            raise RuntimeUnavailable("there is no other card")
        self._close(meanwhile)
        self._open(others[0], meanwhile)

    def _call(
        self,
        what: str,
        work: Callable[[], T],
        seconds: float,
        meanwhile: Meanwhile,
        discard: Callable[[T], object] | None = None,
    ) -> T:
        call = BoundedCall(what, work, discard)
        self._pending.append(call)
        try:
            return call.result(seconds, meanwhile)
        finally:
            if call.done:
                self._pending.remove(call)

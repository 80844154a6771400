"""A model's first load on a card that may have been left wedged, by a crash or a kill."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from ..device.load_watch import LoadProgress, Progress
from ..device.runtime import device_ids
from ..errors import (
    AxpressError,
    CardBeyondHelp,
    EngineClosed,
    FailureKind,
    LogitsError,
    RuntimeCallError,
    RuntimeUnavailable,
    failure_kind,
)
from .attempts import AttemptLog
from .bounded_call import BoundedCall, CallHangs, Meanwhile, nothing, pause
from .firmware import reboot_firmware
from .ladder import REBOOT_SECONDS, RecoveryPolicy, Rung

log = logging.getLogger(__name__)

HELPLESS = frozenset((FailureKind.OUT_OF_MEMORY, FailureKind.REQUEST, FailureKind.CLOSED))
STOP_SECONDS = 20.0  # for the file that is being loaded, when somebody does not want to wait any longer


class Closable(Protocol):
    """What is loaded: an open card with models on it."""

    def close(self) -> None:
        """Frees it."""


T = TypeVar("T", bound=Closable)


class Try(Generic[T]):
    """One loading, on a thread of its own: the card may never come back from a call of it."""

    def __init__(self, load: Callable[[Progress], T], progress: Progress | None) -> None:
        self._progress, self._unanswered, self._stopped = progress, "", False
        self.call = BoundedCall("loading the model", lambda: load(self._tell), lambda loaded: loaded.close())

    def _tell(self, now: LoadProgress) -> None:
        self._unanswered = now.unanswered
        if self._progress is not None:
            self._progress(now)
        if self._stopped and not now.unanswered:
            raise EngineClosed("the loading was interrupted")

    def _check(self) -> None:
        if self._unanswered:
            raise CallHangs(f"the card does not answer: {self._unanswered}")

    def result(self) -> T:
        """What was loaded. CallHangs where the card does not do in time what it is asked for; see LoadWatch."""
        try:
            return self.call.result(math.inf, self._check)
        except KeyboardInterrupt:  # a process that ends in the middle of a file leaves the card wedged
            self._stopped = True
            with suppress(CallHangs):
                self.call.wait(STOP_SECONDS)
            raise


def load_first(
    load: Callable[[Progress], T],
    library: Callable[[], tuple[str, int, bool]],
    policy: RecoveryPolicy,
    attempts: AttemptLog,
    progress: Progress | None = None,
    meanwhile: Meanwhile = nothing,
    device_id: int | None = None,
    more_cards: Sequence[int] = (),
) -> T:
    """What `load` gives, called with a `progress`, tried up to three times where the card fails. Beside a call that
    does not return nothing can be opened: then only a reboot may help. `library` says which runtime, which of its cards
    and whether it is emulated, `more_cards` further ones; `device_id` what the runtime calls that card, where its place
    in the list may change. `meanwhile` is called between the tries, and may raise. Raises CardBeyondHelp, or what is no
    failure of a card at once."""
    rungs = [Rung.REBOOT, Rung.REOPEN]
    failure: AxpressError | None = None
    while True:
        loading = Try(load, progress)
        try:
            return loading.result()
        except (RuntimeCallError, LogitsError, CallHangs) as error:
            failure = error.with_traceback(None)
        except RuntimeUnavailable as error:
            if failure is None:  # there is none, or no driver
                raise
            failure = error.with_traceback(None)  # it was there a moment ago
        if failure_kind(failure) in HELPLESS:
            raise failure
        log.error("the card failed while the model was loaded: %s", failure)
        if isinstance(failure, CallHangs):
            rungs = rungs[:1]
        rung = rungs.pop() if rungs else Rung.EXIT
        if rung is Rung.EXIT or (rung is Rung.REBOOT and attempts.recent(rung.value) >= policy.max_reboots):
            break
        attempts.add(rung.value)
        if rung is Rung.REBOOT:
            runtime, index, emulated = library()
            for card in dict.fromkeys((index, *more_cards)):
                _reboot(runtime, card, emulated, policy, meanwhile, device_id)
        pause(policy.backoff, meanwhile)
        try:
            loading.call.wait(policy.settle, meanwhile)
        except CallHangs:
            break
    exit_wanted = attempts.allow(Rung.EXIT.value, policy.max_exits)
    raise CardBeyondHelp(str(failure), failure_kind(failure), exit_wanted)


def _reboot(
    library: str, index: int, emulated: bool, policy: RecoveryPolicy, meanwhile: Meanwhile, device_id: int | None
) -> None:
    """Reboots the card, if it lets itself, and waits until as many are listed as before, and it among them."""
    try:
        before = BoundedCall("listing the cards", lambda: device_ids(library)).result(policy.check, meanwhile)
        device = device_id if device_id is not None else before[index] if index < len(before) else index
        log.warning("rebooting the firmware of card %s", device)
        BoundedCall("rebooting the card", lambda: reboot_firmware(library, device, emulated)).result(
            REBOOT_SECONDS, meanwhile
        )
    except AxpressError as error:
        log.error("the card cannot be rebooted: %s", error)
        return
    until, between = time.monotonic() + policy.enumerate, 0.25
    while time.monotonic() < until:
        with suppress(RuntimeCallError, RuntimeUnavailable, CallHangs):  # not there yet
            listed = BoundedCall("listing the cards", lambda: device_ids(library)).result(policy.check, meanwhile)
            if len(listed) >= max(len(before), 1) and device_id in (None, *listed):
                return
        pause(between, meanwhile)
        between *= 2

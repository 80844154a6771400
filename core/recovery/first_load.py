"""A model's first load on a card that may have been left wedged, by a crash or a kill."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..device.model_loader import Model
from ..device.runtime import device_ids
from ..errors import AxpressError, CardBeyondHelp, FailureKind, LogitsError, RuntimeCallError, failure_kind
from .attempts import AttemptLog
from .bounded_call import BoundedCall, Meanwhile, nothing, pause
from .firmware import reboot_firmware
from .ladder import REBOOT_SECONDS, RecoveryPolicy, Rung

log = logging.getLogger(__name__)

HELPLESS = frozenset((FailureKind.OUT_OF_MEMORY, FailureKind.REQUEST, FailureKind.CLOSED))


def load_first(
    load: Callable[[], Model],
    library: Callable[[], tuple[str, int, bool]],
    policy: RecoveryPolicy,
    attempts: AttemptLog,
    meanwhile: Meanwhile = nothing,
) -> Model:
    """What `load` gives, tried up to three times where the card fails. `library` says which runtime, which of its cards
    and whether it is emulated. Raises CardBeyondHelp, or what is no failure of a card at once."""
    for rung in (Rung.REOPEN, Rung.REBOOT, None):
        try:
            return load()
        except (RuntimeCallError, LogitsError) as error:
            failure = error.with_traceback(None)
        if failure_kind(failure) in HELPLESS:
            raise failure
        if rung is None:
            break
        log.error("the card failed while the model was loaded: %s", failure)
        if rung is Rung.REBOOT and attempts.recent(rung.value) >= policy.max_reboots:
            break
        attempts.add(rung.value)
        if rung is Rung.REBOOT:
            _reboot(*library(), policy, meanwhile)
        pause(policy.backoff, meanwhile)
    exit_wanted = attempts.allow(Rung.EXIT.value, policy.max_exits)
    raise CardBeyondHelp(str(failure), failure_kind(failure), exit_wanted)


def _reboot(library: str, index: int, emulated: bool, policy: RecoveryPolicy, meanwhile: Meanwhile) -> None:
    """Reboots the card, if it lets itself, and waits until as many are listed as before."""
    try:
        before = BoundedCall("listing the cards", lambda: device_ids(library)).result(policy.check, meanwhile)
        device = before[index] if index < len(before) else index
        log.warning("rebooting the firmware of card %s", device)
        BoundedCall("rebooting the card", lambda: reboot_firmware(library, device, emulated)).result(
            REBOOT_SECONDS, meanwhile
        )
    except AxpressError as error:
        log.error("the card cannot be rebooted: %s", error)
        return
    until, between = time.monotonic() + policy.enumerate, 0.25
    while time.monotonic() < until:
        listed = BoundedCall("listing the cards", lambda: device_ids(library)).result(policy.check, meanwhile)
        if len(listed) >= max(len(before), 1):
            return
        pause(between, meanwhile)
        between *= 2

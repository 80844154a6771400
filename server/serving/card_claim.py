"""One server to a card: who serves it holds a lock in the state directory, which ends with the process, however."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TextIO

from axpress.core.doctor.driver import card_users
from axpress.core.doctor.host import Host
from axpress.core.errors import RuntimeUnavailable
from axpress.core.recovery.attempts import attempts_file
from axpress.core.recovery.bounded_call import pause

log = logging.getLogger("axpress.server")

CLAIM_SECONDS = 10.0
"""A server that is told to end may take so long until the next one has the card."""


def card_holders() -> str | None:
    """Who else has a card open, in words; empty: nobody, None: nobody that this user may look at."""
    users, complete = card_users(Host())
    names = ", ".join(f"{command} (process {pid})" for pid, command in users)
    return names or ("" if complete else None)


def claim_card(state_dir: Path | None, index: int, emulated: bool, meanwhile: Callable[[], None]) -> TextIO | None:
    """The lock, to be closed when the card is; None where there is no state directory: an emulated card is its
    process's own. RuntimeUnavailable where another server has the card."""
    if not emulated and (others := card_holders()):
        log.warning("open on the card already: %s", others)
    state = attempts_file(state_dir, emulated)
    if state is None:
        return None
    path = state.with_name(f"card-{index}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    except OSError as error:
        log.warning("whether another server has this card cannot be told: %s (%s)", error.strerror or error, path)
        return None
    until, told = monotonic() + CLAIM_SECONDS, False
    while not _locked(lock):
        lock.seek(0)
        holder = f"process {lock.read().strip() or 'of another user'}"
        if monotonic() > until:
            lock.close()
            raise RuntimeUnavailable(
                f"card {index} is served by {holder} (it holds {path}): end that one first, or choose another card with"
                " --device"
            )
        if not told:
            log.warning("card %d is served by %s: waiting up to %g s for its end", index, holder, CLAIM_SECONDS)
            told = True
        pause(0.2, meanwhile)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

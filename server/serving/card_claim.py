"""One server to a card: who serves it holds a lock in the state directory, which ends with the process, however."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TextIO

from axpress.core.doctor.driver import card_users
from axpress.core.doctor.host import Host
from axpress.core.errors import RuntimeUnavailable
from axpress.core.recovery.attempts import attempts_file
from axpress.core.recovery.bounded_call import pause

log = logging.getLogger("axpress.server")

CLAIM_SECONDS = 40.0
"""A server that was told to end lets its answers end before the next one has the card."""


@dataclass(frozen=True)
class Claim:
    """Of one card; `lock` None: there is no state directory. `after_crash`: who had it before did not give it up, so
    what is held on the card may be his."""

    lock: TextIO | None = None
    after_crash: bool = False

    def holders(self) -> str | None:
        """Who else has a card open, in words; empty: nobody, as far as this user can see and the one before tells;
        None: that cannot be told."""
        users, complete = card_users(Host())
        complete = complete and Path("/proc/1").exists()  # a service sees its own processes only
        names = ", ".join(f"{command} (process {pid})" for pid, command in users)
        return names or ("" if complete or self.after_crash else None)

    def give_up(self) -> None:
        """The card is closed: the next one may have it."""
        if self.lock is not None and not self.lock.closed:
            self.lock.truncate(0)
            self.lock.close()


def claim_card(state_dir: Path | None, index: int, emulated: bool, meanwhile: Callable[[], None]) -> Claim:
    """Waits for one who is about to give the card up. An emulated card is its process's own, unless there is a state
    directory. RuntimeUnavailable where another server keeps it."""
    state = attempts_file(state_dir, emulated)
    if state is None:
        return Claim()
    path = state.with_name(f"card-{index}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    except OSError as error:
        log.warning("whether another server has this card cannot be told: %s (%s)", error.strerror or error, path)
        return Claim()
    until, told = monotonic() + CLAIM_SECONDS, False
    while not _locked(lock):
        holder = f"process {_read(lock) or 'of another user'}"
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
    claim = Claim(lock, after_crash=bool(_read(lock)))
    if claim.after_crash:
        log.warning("process %s had card %d and did not close it", _read(lock), index)
    if not emulated and (others := claim.holders()):
        log.warning("open on the card already: %s", others)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return claim


def _read(lock: TextIO) -> str:
    lock.seek(0)
    return lock.read().strip()


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

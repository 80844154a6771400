"""The last rung: root's helper, where `axpress service install --helper` has put it, starts firmware and driver of a
card again that restarts of this process did not bring back. It is asked by writing to a file that it looks at."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from axpress.core.recovery.attempts import AttemptLog, attempts_file

log = logging.getLogger("axpress.server")

VARIABLE = "AXPRESS_CARD_RESET"
"""Names the file; unset: there is no helper."""
MOST_RESETS = 2
"""An hour, as many as the helper's unit allows."""


def ask_for_reset(state_dir: Path | None, reason: str) -> bool:
    """Whether the helper was asked: this process is to end then, the helper starts it again."""
    path = os.environ.get(VARIABLE)
    if not path or not AttemptLog(attempts_file(state_dir, emulated=False)).allow("driver", MOST_RESETS):
        return False
    try:
        Path(path).write_text(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {reason}\n")
    except OSError as error:
        log.error("the helper cannot be asked to start the card's driver again: %s", error)
        return False
    log.error("restarts did not help: root's helper was asked to start firmware and driver of the card again")
    return True

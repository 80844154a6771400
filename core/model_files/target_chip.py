"""The chip that a package's names say it was compiled for: packages for several chips have the same file names."""

from __future__ import annotations

import re
from collections.abc import Iterable

CHIP = re.compile(r"(?<![a-z0-9])ax(\d{3,4})[a-z]{0,2}(?![a-z0-9])")
OURS = ("650", "8850")  # the card's chip, and the name it has on the M.2 module


def other_chip(names: Iterable[str]) -> str | None:
    """The first of the names, nearest to the files first, that tells a chip: its name if that is another than the
    card's, None if it is the card's or no name tells one."""
    for name in names:
        found = list(CHIP.finditer(name.lower()))
        if found:
            return None if any(match[1] in OURS for match in found) else found[0][0].upper()
    return None

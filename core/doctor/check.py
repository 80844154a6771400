"""What one check found: a line for people, an object for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How a check came out. UNKNOWN: it could not be looked at, and `cure` says how it could."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """`seen` is what was found, `cure` what to do about it: empty where nothing is to be done."""

    name: str
    state: State
    seen: str
    cure: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The object that `--json` prints: name, state, seen, cure, all strings."""
        return {key: str(value) for key, value in asdict(self).items()}

    def lines(self) -> str:
        """The check as text, its cure on a line of its own."""
        cure = f"\n{'':25}-> {self.cure}" if self.cure else ""
        return f"{self.state:8} {self.name:16}{self.seen}{cure}"


def ok(name: str, seen: str) -> Check:
    """Nothing to do."""
    return Check(name, State.OK, seen)


def warning(name: str, seen: str, cure: str) -> Check:
    """It works, but worse than it could, or not for long."""
    return Check(name, State.WARNING, seen, cure)


def wrong(name: str, seen: str, cure: str) -> Check:
    """A model cannot be served like this."""
    return Check(name, State.WRONG, seen, cure)


def unknown(name: str, seen: str, cure: str) -> Check:
    """It could not be looked at."""
    return Check(name, State.UNKNOWN, seen, cure)

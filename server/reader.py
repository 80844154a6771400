"""Takes an answer's text apart: reasoning, content, calls of functions with their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from axpress.core.request import Delta


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer. `kind` "call" begins call number `call` of the function named `text`; "arguments" goes on with its JSON."""

    kind: Literal["content", "reasoning", "call", "arguments"]
    text: str
    call: int = 0


class Reader:
    """Reads one answer as it comes. What might still turn out to be a tag is held back until it is known."""

    reasoning_tokens = 0
    num_calls = 0

    def read(self, deltas: Sequence[Delta]) -> list[Piece]:
        """The pieces that these deltas bring; the last delta of the answer (with `finish_reason`) brings all that was held back."""
        raise NotImplementedError

"""How likely guessed tokens come true: measured, by where they come from and how long an agreement preceded them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MAX_MATCH: Final = 32  # longer agreement says nothing more
_BOUNDS = (0, 4, 5, 6, 8, 12, 20)  # of agreement, in tokens: what is measured together
_BUCKETS = [sum(length >= bound for bound in _BOUNDS) - 1 for length in range(MAX_MATCH + 1)]
LEARNED_AT_ONCE, LEARNED_SLOWLY = 0.16, 0.03  # weight of a guess in an answer's own chances, in its tenant's
LEAST_USE = 0.1  # guesses that are reached with less than this chance are not made


class Source(IntEnum):
    """Where a guess comes from. AGREED: earlier answers that went on the same way, more than once."""

    PREDICTION, CONVERSATION, HISTORY, AGREED, GRAMMAR = range(5)


@dataclass(frozen=True, slots=True)
class Draft:
    """Guessed next tokens. `match` is how many tokens before them agreed with their source."""

    tokens: tuple[int, ...]
    match: int
    source: Source


NO_DRAFT = Draft((), 0, Source.CONVERSATION)

# What real text showed (bench/drafts.py), before an answer or its tenant has shown its own.
_EXPECTED = {
    Source.PREDICTION: (0.8,) * 7,
    Source.CONVERSATION: (0.5, 0.55, 0.6, 0.65, 0.75, 0.85, 0.9),
    Source.HISTORY: (0.2, 0.25, 0.3, 0.35, 0.4, 0.6, 0.8),
    Source.AGREED: (0.3, 0.4, 0.5, 0.55, 0.65, 0.75, 0.9),
}


class DraftChances:
    """The chance that the next token of a draft comes true, given those before it, as a moving average."""

    __slots__ = ("_hits",)

    def __init__(self, start: DraftChances | None = None) -> None:
        self._hits: list[list[float]] = [
            list(hits) for hits in (start._hits if start is not None else _EXPECTED.values())
        ]

    def of(self, source: Source, match: int) -> float:
        """The chance after an agreement of `match` tokens."""
        return 1.0 if source is Source.GRAMMAR else self._hits[source][_BUCKETS[match]]

    def worth_trying(self, source: Source, match: int, limit: int) -> int:
        """How many guesses, at most `limit`, are likely enough to be reached."""
        chance = self.of(source, match)
        return limit if chance >= 1 else min(limit, 1 + int(math.log(LEAST_USE) / math.log(max(chance, 0.01))))

    def learn(self, draft: Draft, accepted: int, weight: float) -> None:
        """`accepted` of the draft's tokens came true, the next of them, if there is one, did not."""
        if draft.source is Source.GRAMMAR:
            return
        hits, bucket = self._hits[draft.source], _BUCKETS[draft.match]
        for i in range(min(accepted + 1, len(draft.tokens))):
            hits[bucket] += weight * ((i < accepted) - hits[bucket])

"""Guessed tokens: what followed the last time the answer's latest tokens stood in this conversation, or in its
`prediction`.

A guess is checked in the same pass that computes the next token, so it can only save time. How often guesses of this
answer come true is measured, and they stop where they do not pay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GRAM = 3  # tokens that must agree before a continuation is considered
MAX_CANDIDATES = 8  # latest places looked at
TRUSTED_MATCH = 6  # an agreement of this length deserves the measured chance
MAX_MATCH = 32  # longer agreement says nothing more


@dataclass(frozen=True, slots=True)
class Draft:
    """Guessed next tokens. `match` is how many tokens before them agreed; `predicted`: they come from the prediction
    text; `certain`: nothing else can come."""

    tokens: tuple[int, ...]
    match: int
    predicted: bool = False
    certain: bool = False


NO_DRAFT = Draft((), 0)


class SuffixIndex:
    """Where each run of GRAM tokens stands in a text that grows at its end. Appending a token is O(1)."""

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}
        self._latest: list[int] = []  # the places of the latest GRAM tokens
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """The text goes on with `token`."""
        self.tokens.append(token)
        end = len(self.tokens)
        if end >= GRAM:
            self._latest = self._places.setdefault(tuple(self.tokens[end - GRAM :]), [])
            self._latest.append(end)

    @property
    def repeats(self) -> bool:
        """Whether its latest tokens stand somewhere else in it, too."""
        return len(self._latest) > 1

    def longest(self, tail: Sequence[int], before: int) -> tuple[int, int]:
        """Where the longest suffix of `tail` ends in this text, before index `before`: (index that follows it, length);
        (0, 0): nowhere."""
        best, length = 0, 0
        for end in reversed(self._places.get(tuple(tail[-GRAM:]), ())[-MAX_CANDIDATES - 1 :]):
            if end >= before:
                continue
            n = GRAM
            while n < MAX_MATCH and n < end and n < len(tail) and self.tokens[end - n - 1] == tail[-n - 1]:
                n += 1
            if n > length:
                best, length = end, n
        return best, length


class DraftProposer:
    """Guesses for one answer. `prediction` is the token ids of the text that the client expects to see."""

    def __init__(self, prompt: Sequence[int], prediction: Sequence[int] = ()) -> None:
        self._own = SuffixIndex(prompt)
        self._prediction = SuffixIndex(prediction)
        self._at = 0 if prediction else -1  # index in the prediction that should come next; -1: lost
        self._hits = {True: 0.8, False: 0.6}  # chance that a guessed token comes true, by source; moving averages

    def append(self, token: int) -> None:
        """The answer goes on with `token`."""
        self._own.append(token)
        if self._at >= 0:
            expected = self._prediction.tokens[self._at] if self._at < len(self._prediction.tokens) else None
            self._at = self._at + 1 if token == expected else -1

    def propose(self, limit: int) -> Draft:
        """At most `limit` guessed tokens; empty where nothing is known."""
        if limit < 1 or not (self._own.repeats or self._prediction.tokens):
            return NO_DRAFT
        tail = self._own.tokens[-MAX_MATCH:]
        if self._prediction.tokens:
            at = (
                self._at if self._at >= 0 else self._prediction.longest(tail, len(self._prediction.tokens) + 1)[0] or -1
            )
            guess = tuple(self._prediction.tokens[at : at + limit]) if at >= 0 else ()
            if guess:
                self._at = at
                return Draft(guess, MAX_MATCH, True)
        end, match = self._own.longest(tail, len(self._own.tokens))
        guess = tuple(self._own.tokens[end : end + limit]) if match else ()
        return Draft(guess, match) if guess else NO_DRAFT

    def chance(self, draft: Draft) -> float:
        """The measured chance that the next token of `draft` comes true; a long agreement is trusted more than a short
        one."""
        if draft.certain:
            return 1.0
        base = self._hits[draft.predicted]
        if draft.predicted:
            return base
        return (
            1 - (1 - base) * TRUSTED_MATCH / draft.match
            if draft.match > TRUSTED_MATCH
            else base * draft.match / TRUSTED_MATCH
        )

    def checked(self, draft: Draft, accepted: int) -> None:
        """`accepted` of the draft's tokens came true. Forgets half of what it knew about every four guesses."""
        if draft.certain:
            return
        tried = min(accepted + 1, len(draft.tokens))
        for i in range(tried):
            self._hits[draft.predicted] += 0.16 * ((i < accepted) - self._hits[draft.predicted])

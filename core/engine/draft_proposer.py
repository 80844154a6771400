"""Guessed tokens: what followed the last time the answer's latest tokens stood in this conversation, or in its
`prediction`.

A guess is checked in the same pass that computes the next token, so it can only save time. How often guesses of this
answer come true is measured, and they stop where they do not pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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


class AnswerDrafts:
    """The drafts of one answer, pass by pass: proposed, verified by a pass, accepted as far as they came true.

    `prediction`: token ids of text that the answer is expected to repeat. Not `enabled`: nothing is ever proposed."""

    def __init__(self, prompt: Sequence[int], prediction: Sequence[int], *, enabled: bool) -> None:
        self.draft = NO_DRAFT
        self._proposer = DraftProposer(prompt, prediction) if enabled else None
        self._num_verified = 0  # tokens of the draft that are in the pass being run
        self._num_accepted = 0  # of them, those that the answer went on with
        self._num_taken = 0  # tokens that it went on with since that pass began
        self._accepted_prediction = self._rejected_prediction = 0

    @property
    def chance(self) -> float:
        """How likely each token of the draft comes true, given those before it."""
        return self._proposer.chance(self.draft) if self._proposer is not None else 0.0

    def propose(self, limit: int, forced: list[int], possible: Callable[[tuple[int, ...]], int]) -> None:
        """Prepares the draft of the next pass: at most `limit` tokens, of `forced` ones (which must come, the last one
        first) if there are any. `possible` tells how many of some tokens could come."""
        self.draft = NO_DRAFT
        if self._proposer is None or limit < 1:
            return
        if forced:
            self.draft = Draft(tuple(forced[: -limit - 1 : -1]), 0, certain=True)
            return
        draft = self._proposer.propose(limit)
        self.draft = replace(draft, tokens=draft.tokens[: possible(draft.tokens)]) if draft.tokens else draft

    def clear(self) -> None:
        """No draft for the next pass."""
        self.draft = NO_DRAFT

    def verify(self, count: int) -> tuple[int, ...]:
        """The first `count` tokens of the draft, which the pass that is about to run verifies."""
        self._num_verified, self._num_accepted, self._num_taken = count, 0, 0
        return self.draft.tokens[:count]

    def take(self, token: int) -> None:
        """The answer goes on with, or ends with, `token`."""
        at = self._num_accepted
        if at < self._num_verified and at == self._num_taken and token == self.draft.tokens[at]:
            self._num_accepted += 1
        self._num_taken += 1

    def append(self, token: int) -> None:
        """`token` is part of the text that later tokens are looked up in."""
        if self._proposer is not None:
            self._proposer.append(token)

    def settle(self, num_cached: int) -> None:
        """After the pass: `num_cached` tokens of the draft came true and are in the cache now."""
        if self._proposer is not None and self._num_verified:
            self._proposer.checked(replace(self.draft, tokens=self.draft.tokens[: self._num_verified]), num_cached)
        self._accepted_prediction, self._rejected_prediction = self.prediction_counts()
        self.draft, self._num_verified = NO_DRAFT, 0

    def prediction_counts(self) -> tuple[int, int]:
        """Tokens of the request's prediction that were accepted and rejected, those of the pass being run among
        them."""
        accepted, rejected = self._accepted_prediction, self._rejected_prediction
        if self.draft.predicted and self._num_verified:
            return accepted + self._num_accepted, rejected + self._num_verified - self._num_accepted
        return accepted, rejected

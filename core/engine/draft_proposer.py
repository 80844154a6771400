"""Guessed tokens: what followed the last time the answer's latest tokens stood in this conversation, in its
`prediction`, or in an earlier answer of the same tenant (`answer_history`).

A guess is checked in the same pass that computes the next token, so it can only save time. How often guesses come true
is measured, those that were not checked among them, and they are made where they pay."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from operator import mul

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .answer_history import GRAM, MAX_CANDIDATES, MAX_LINKS, NUM_CONTEXT, AnswerHistory
from .draft_chances import LEARNED_AT_ONCE, LEARNED_SLOWLY, MAX_MATCH, NO_DRAFT, Draft, DraftChances, Source

FACTORS = (0x1B873593, 0x0CC9E2D5, 0x165667B1)  # of a run's hash, odd and below 2^29: sums stay within 64 bits
MIN_SIZE = 256  # tokens: of a short text's table


class SuffixIndex:
    """Where each run of GRAM tokens stands in a text that grows at its end: chains of equal runs, as in AnswerHistory,
    made at once for what is there at first. At most 16 bytes a token; appending one is O(1), all in all."""

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens = array("i", tokens)
        self._make()

    def _make(self) -> None:
        """Chains of all tokens, and room for as many more."""
        size = len(self.tokens)
        self._size = max(MIN_SIZE, 1 << size.bit_length())
        self._earlier = array("i", bytes(4 * size + 4))  # by the end of a run: where one of its hash ended before
        self._latest = array("i", bytes(4 * self._size))  # by hash: where the latest such run ends; 0: nowhere
        if size < GRAM:
            return
        text = np.array(np.frombuffer(self.tokens, np.int32), np.int64)  # a copy: an array that is looked into stays
        runs = sliding_window_view(text, GRAM) @ np.array(FACTORS) % self._size
        order = np.argsort(runs, kind="stable")
        same = runs[order[1:]] == runs[order[:-1]]
        np.frombuffer(self._earlier, np.int32)[order[1:][same] + GRAM] = order[:-1][same] + GRAM
        np.frombuffer(self._latest, np.int32)[runs[order]] = order + GRAM  # of equal ones the last counts

    def append(self, token: int) -> None:
        """The text goes on with `token`."""
        self.tokens.append(token)
        end = len(self.tokens)
        if end > self._size:
            return self._make()
        run = self._hash(self.tokens[-GRAM:]) if end >= GRAM else None
        self._earlier.append(0 if run is None else self._latest[run])
        if run is not None:
            self._latest[run] = end

    def _hash(self, run: Sequence[int]) -> int:
        return sum(map(mul, run, FACTORS)) % self._size

    @property
    def repeats(self) -> bool:
        """Whether its latest tokens may stand somewhere else in it, too."""
        return self._earlier[-1] > 0

    def longest(self, tail: Sequence[int], before: int) -> tuple[int, int]:
        """Where the longest suffix of `tail` ends in this text, before index `before`: (index that follows it, length);
        (0, 0): nowhere."""
        best, length = 0, 0
        for end in self._places(tail):
            if end >= before:
                continue
            n = GRAM
            while n < MAX_MATCH and n < end and n < len(tail) and self.tokens[end - n - 1] == tail[-n - 1]:
                n += 1
            if n > length:
                best, length = end, n
        return best, length

    def _places(self, tail: Sequence[int]) -> Iterator[int]:
        """The latest ends of the run that ends `tail`."""
        if len(tail) < GRAM:
            return
        run, count = array("i", tail[-GRAM:]), 0
        end = self._latest[self._hash(run)]
        for _ in range(MAX_LINKS):
            if not end or count > MAX_CANDIDATES:
                return
            if self.tokens[end - GRAM : end] == run:
                count += 1
                yield end
            end = self._earlier[end]


class DraftProposer:
    """Guesses for one answer. `prediction` is the token ids of the text that the client expects to see; `history` has
    earlier answers, those of `cache_salt` are looked at."""

    def __init__(
        self,
        prompt: Sequence[int],
        prediction: Sequence[int] = (),
        history: AnswerHistory | None = None,
        cache_salt: bytes = b"",
    ) -> None:
        self._own = SuffixIndex(prompt)
        self._num_prompt = len(prompt)
        self._prediction = SuffixIndex(prediction)
        self._at = 0 if prediction else -1  # index in the prediction that should come next; -1: lost
        self._history, self._cache_salt = history, cache_salt
        self._chances: DraftChances | None = None
        self._followed, self._num_followed = NO_DRAFT, 0  # a draft, and how much of it came true so far

    def use_history(self, history: AnswerHistory | None) -> None:
        """The answer goes on in another engine, which has these earlier answers."""
        self._history = history

    @property
    def chances(self) -> DraftChances:
        """What is known of guesses for this answer: at first what its tenant's other answers showed."""
        if self._chances is None:
            tenant = self._history.tenant(self._cache_salt) if self._history is not None else None
            self._chances = DraftChances(tenant.chances if tenant is not None else None)
        return self._chances

    def append(self, token: int) -> None:
        """The answer goes on with `token`."""
        self._own.append(token)
        self._learn(token)
        if self._at >= 0:
            expected = self._prediction.tokens[self._at] if self._at < len(self._prediction.tokens) else None
            self._at = self._at + 1 if token == expected else -1

    def propose(self, limit: int) -> Draft:
        """At most `limit` guessed tokens, of the source that is most likely right; empty where nothing is known."""
        if limit < 1:
            return NO_DRAFT
        tail, chances = self._own.tokens[-MAX_MATCH:], self.chances
        drafts = [self._of_prediction(tail, limit)]
        if not drafts[0].tokens:
            drafts = [_text_of(self._of_conversation(tail, limit)), _text_of(self._of_history(tail, limit))]
        best = max(drafts, key=lambda d: chances.of(d.source, d.match) if d.tokens else -1.0)
        if not best.tokens:
            return NO_DRAFT
        if not self._followed.tokens:
            self.follow(best)
        return replace(best, tokens=best.tokens[: chances.worth_trying(best.source, best.match, limit)])

    def _of_prediction(self, tail: array[int], limit: int) -> Draft:
        text = self._prediction
        if text.tokens and self._at < 0:
            self._at = text.longest(tail, len(text.tokens) + 1)[0] or -1
        guess = text.tokens[self._at : self._at + limit] if self._at >= 0 else ()
        return Draft(tuple(guess), MAX_MATCH, Source.PREDICTION)

    def _of_conversation(self, tail: array[int], limit: int) -> Draft:
        if not self._own.repeats:
            return NO_DRAFT
        text = self._own.tokens
        end, match = self._own.longest(tail, len(text))
        if not match:
            return NO_DRAFT
        way = text[end : end + limit]
        way *= -(-limit // len(way))  # what reaches the end of the text begins again
        return Draft(tuple(way[:limit]), match, Source.CONVERSATION)

    def _of_history(self, tail: array[int], limit: int) -> Draft:
        tenant = self._history.tenant(self._cache_salt) if self._history is not None else None
        return self._history.propose(tenant, tail, limit) if self._history is not None and tenant else NO_DRAFT

    def follow(self, draft: Draft) -> None:
        """Whether this draft comes true is what is learned next, checked by a pass or not."""
        self._followed, self._num_followed = draft, 0

    def _learn(self, token: int) -> None:
        draft, at = self._followed, self._num_followed
        if not draft.tokens:
            return
        self._num_followed += token == draft.tokens[at]
        if self._num_followed == at or self._num_followed == len(draft.tokens):
            self._followed = NO_DRAFT
            self.chances.learn(draft, self._num_followed, LEARNED_AT_ONCE)
            tenant = self._history.tenant(self._cache_salt) if self._history is not None else None
            if tenant is not None:
                tenant.chances.learn(draft, self._num_followed, LEARNED_SLOWLY)

    def keep(self) -> None:
        """The answer is over: later ones may be guessed from it."""
        if self._history is not None:
            kept = self._own.tokens[max(self._num_prompt - NUM_CONTEXT, 0) :]
            self._history.add(self._cache_salt, kept, self.chances)


def _text_of(draft: Draft) -> Draft:
    """What of the draft comes before a picture: its tokens have negative ids."""
    first = next((i for i, token in enumerate(draft.tokens) if token < 0), len(draft.tokens))
    return draft if first == len(draft.tokens) else replace(draft, tokens=draft.tokens[:first])


class AnswerDrafts:
    """The drafts of one answer, pass by pass: proposed, verified by a pass, accepted as far as they came true.

    `proposer` None: nothing but what must come is ever proposed."""

    def __init__(self, proposer: DraftProposer | None) -> None:
        self.draft = NO_DRAFT
        self._proposer = proposer
        self._num_verified = 0  # tokens of the draft that are in the pass being run
        self._num_accepted = 0  # of them, those that the answer went on with
        self._num_taken = 0  # tokens that it went on with since that pass began
        self._accepted_prediction = self._rejected_prediction = 0

    def use_history(self, history: AnswerHistory | None) -> None:
        """See DraftProposer."""
        if self._proposer is not None:
            self._proposer.use_history(history)

    @property
    def chance(self) -> float:
        """How likely each token of the draft comes true, given those before it."""
        return self._proposer.chances.of(self.draft.source, self.draft.match) if self._proposer is not None else 0.0

    def propose(self, limit: int, forced: list[int], possible: Callable[[tuple[int, ...]], int]) -> None:
        """Prepares the draft of the next pass: at most `limit` tokens, of `forced` ones (which must come, the last one
        first) if there are any. `possible` tells how many of some tokens could come."""
        self.draft = NO_DRAFT
        if self._proposer is None or limit < 1:
            return
        if forced:
            self.draft = Draft(tuple(forced[: -limit - 1 : -1]), 0, Source.GRAMMAR)
            return
        draft = self._proposer.propose(limit)
        self.draft = replace(draft, tokens=draft.tokens[: possible(draft.tokens)]) if draft.tokens else draft

    def clear(self) -> None:
        """No draft for the next pass."""
        self.draft = NO_DRAFT

    def verify(self, count: int) -> tuple[int, ...]:
        """The first `count` tokens of the draft, which the pass that is about to run verifies."""
        self._num_verified, self._num_accepted, self._num_taken = count, 0, 0
        if count and self._proposer is not None:
            self._proposer.follow(replace(self.draft, tokens=self.draft.tokens[:count]))
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

    def keep(self) -> None:
        """The answer is over: later ones may be guessed from it."""
        if self._proposer is not None:
            self._proposer.keep()

    def settle(self) -> None:
        """After the pass: what it verified is counted, and the draft is gone."""
        self._accepted_prediction, self._rejected_prediction = self.prediction_counts()
        self.draft, self._num_verified = NO_DRAFT, 0

    def prediction_counts(self) -> tuple[int, int]:
        """Tokens of the request's prediction that were accepted and rejected, those of the pass being run among
        them."""
        accepted, rejected = self._accepted_prediction, self._rejected_prediction
        if self.draft.source is Source.PREDICTION and self._num_verified:
            return accepted + self._num_accepted, rejected + self._num_verified - self._num_accepted
        return accepted, rejected

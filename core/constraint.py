"""What may come next in an answer, beside what the model thinks: a grammar, a budget, a script of tokens."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Constraint(Protocol):
    """One answer's rules. Made when its answer begins, used on the engine's thread only. Tokens are told to it once each, in order.

    An AxpressError raised by any of these ends the answer with that error; other answers are not touched.
    """

    def mask(self) -> Any:
        """uint32 words for `Sampler.allow`: token t is allowed if bit t % 32 of words[t // 32] is set. None: any token.

        The same memory may be used again by the next call. End tokens are allowed only where the answer may end.
        """

    def accept(self, token: int) -> None:
        """The answer goes on with `token`, whether sampled or forced. End tokens are not told: the answer is over."""

    def forced(self) -> list[int]:
        """Tokens that must come next, whatever the model thinks; may be empty. All of them are taken, in order."""

    def check(self, tokens: tuple[int, ...]) -> int:
        """How many of these guessed tokens could come next: only saves guesses that would fail."""

    @property
    def done(self) -> bool:
        """Whether nothing may follow: the answer is complete, and no pass is spent on an end token."""


class OneToken:
    """A mask that allows one token of `vocab_size`: for a token that is certain, whose log-probability is wanted."""

    def __init__(self, vocab_size: int) -> None:
        self._words = np.zeros((vocab_size + 31) // 32, np.uint32)
        self._token = 0

    def words(self, token: int) -> Any:
        """The words for `Sampler.allow`; the same memory each time."""
        self._words[self._token // 32] = 0
        self._words[token // 32] = 1 << token % 32
        self._token = token
        return self._words

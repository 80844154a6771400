"""Constraints that are no grammar: what may come next in an answer is one token, or whatever a budget leaves."""

from __future__ import annotations

import codecs
from typing import Any

import numpy as np

from ..request import Constraint


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


class ThinkingBudget:
    """Lets an answer think for `budget` tokens, then forces `closing`; before and after that, `inner` (None: nothing)
    rules.

    `data`: each token's bytes. Thinking begins where the answer begins with `begin` (empty: at once) and ends with
    `end`."""

    def __init__(
        self, inner: Constraint | None, budget: int, closing: list[int], data: list[bytes], begin: bytes, end: bytes
    ) -> None:
        self._inner, self._budget, self._closing = inner, budget, closing
        self._data, self._begin, self._end = data, begin, end
        self._thinking, self._over = not begin, False
        self._count = 0
        self._tail = b""  # the latest bytes: of the beginning, or what `end` may have begun in
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def mask(self) -> Any:
        return self._inner.mask() if self._inner is not None else None

    def accept(self, token: int) -> None:
        if self._inner is not None:
            self._inner.accept(token)
        if self._over:
            return
        data = self._data[token] if token < len(self._data) else b""
        self._decoder.decode(data)
        self._tail += data
        if self._thinking:
            self._count += 1
            self._over = self._end in self._tail
            self._tail = self._tail[max(0, len(self._tail) - len(self._end) + 1) :]
            return
        self._tail = self._tail.lstrip()  # some tokenizers put a space first
        if self._tail.startswith(self._begin):
            self._thinking = True
            self._tail = self._tail[len(self._begin) :]
            self._over = self._end in self._tail
        else:
            self._over = not self._begin.startswith(self._tail)

    def forced(self) -> list[int]:
        in_character = bool(self._decoder.getstate()[0])
        if self._thinking and not self._over and self._count >= self._budget and not in_character:
            return self._closing
        return self._inner.forced() if self._inner is not None else []

    def check(self, tokens: tuple[int, ...]) -> int:
        return self._inner.check(tokens) if self._inner is not None else len(tokens)

    @property
    def done(self) -> bool:
        return self._inner is not None and self._inner.done

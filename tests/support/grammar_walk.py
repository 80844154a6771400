"""Following a constraint without a model: what would be sampled is drawn by the test."""

from __future__ import annotations

import random

import numpy as np

from axpress.core.request import Constraint
from axpress.core.tokenizer.tokenizer import Tokenizer


def allowed(constraint: Constraint) -> list[int]:
    """Token ids that the mask allows now."""
    words = np.asarray(constraint.mask())
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")).tolist()


def spelled(text: Tokenizer, what: str) -> list[int]:
    """Token ids of `what`, added tokens by their one id."""
    for token, number in text.added_tokens.items():
        if token in what:
            before, after = what.split(token, 1)
            return [*spelled(text, before), number, *spelled(text, after)]
    return text.encode(what) if what else []


def walk(constraint: Constraint, text: Tokenizer, seed: int = 0, limit: int = 400, begin: str = "") -> tuple[str, bool]:
    """An answer whose tokens are `begin`, then drawn from the masks: (text with added tokens, whether it is
    complete)."""
    rnd, tokens, queue = random.Random(seed), list[int](), list[int]()
    while len(tokens) < limit:
        forced = constraint.forced()
        for token in forced:
            constraint.accept(token)
        tokens += forced
        so_far = text.decode(tokens)
        if constraint.done:
            return so_far, True
        if forced:
            queue.clear()
            continue
        choice = allowed(constraint)
        queue = queue or spelled(text, begin[len(so_far) :])
        token = queue.pop(0) if queue else rnd.choice(choice)
        assert token in choice, f"{text.id_to_text(token)!r} is not allowed after {so_far!r}"
        if token in text.eos_ids:
            return so_far, True
        constraint.accept(token)
        tokens.append(token)
    return text.decode(tokens), False

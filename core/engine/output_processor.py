"""From logits to a piece of text: what of an answer its client sees, token by token, and where it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..model_files.safetensors import from_bf16
from ..request import Constraint, FinishReason, GenerationRequest, TokenLogprob
from ..sampling.sampler import Sampler, Scratch
from ..structured_output.constraint import OneToken
from ..tokenizer.detokenizer import StopChecker
from ..tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)

TINY = 1e-12  # no vector is divided by less


class Piece(NamedTuple):
    """What a token added: `text`, whole characters only, and why the answer is over, if it is. `ended`: the token was
    an end token, which is no part of the answer."""

    text: str
    finish: FinishReason | None = None
    ended: bool = False


def embedding(hidden: NDArray[Any], dimensions: int) -> NDArray[np.float32]:
    """A text's vector, float32 [dimensions]: the first values of its last token's normed hidden state, bf16 bits or
    float32, scaled to length 1."""
    first = hidden[:dimensions]
    values = from_bf16(first) if first.dtype == np.uint16 else first.astype(np.float32)
    length = np.sqrt(np.square(values, dtype=np.float64).sum())
    return (values / max(length, TINY)).astype(np.float32)


def logits_of(tokens: tuple[int, ...], logits: NDArray[Any]) -> NDArray[np.float32]:
    """These tokens' logits, float32 [tokens], of those of all, bf16 bits or float32 [vocab]. Raises RequestError where
    a trimmed head gives one of them none."""
    chosen = logits[list(tokens)]
    values = from_bf16(chosen) if chosen.dtype == np.uint16 else chosen.astype(np.float32)
    for token, value in zip(tokens, values, strict=True):
        if value == -np.inf:
            raise RequestError(f"the model's head, which is trimmed, gives no logit of token {token}", "scored")
    return values


class OutputProcessor:
    """One answer's output: sampler, rules, detokenizer and stop strings.

    Made on any thread, used on the engine's. `forced` holds tokens that must come next, the last one first. What goes
    wrong while the rules are made is raised by `begin`, when the answer has its place.
    """

    def __init__(self, request: GenerationRequest, tokenizer: Tokenizer, vocab_size: int, scratch: Scratch) -> None:
        self.request = request
        self.num_generated = 0
        self.forced: list[int] = []
        self._eos_ids = tokenizer.eos_ids
        self._sampler = Sampler(vocab_size, request.params, request.prompt_ids, scratch=scratch)
        self._detokenizer = tokenizer.detokenizer()
        self._stops = StopChecker(request.stop, request.stop_after, request.stop_after_begin)
        self._constraint: Constraint | None = None
        self._fault: Exception | None = None
        # Where log-probabilities are wanted the model is asked for forced tokens, too.
        wants_all = request.constraint is not None and request.params.logprobs is not None
        self._one_token = OneToken(vocab_size) if wants_all else None
        self._make_constraint(request.constraint)

    def _make_constraint(self, make: Callable[[], Constraint] | None) -> None:
        try:
            self._constraint = make() if make is not None else None
            self.find_forced()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a library's panic is no Exception
            self._fault = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")

    def use_scratch(self, scratch: Scratch) -> None:
        """The answer goes on on another engine's thread, whose working memory this is."""
        self._sampler.use(scratch)

    def begin(self) -> None:
        """The answer has its place. Raises what went wrong with its rules."""
        if self._fault is not None:
            raise self._fault

    def find_forced(self) -> None:
        """Asks the rules what must come next, if that is not known."""
        if self._constraint is not None and not self.forced:
            self.forced = self._constraint.forced()[::-1]

    @property
    def next_forced(self) -> int | None:
        """The token that comes next without asking the model; None: the model is asked."""
        return self.forced[-1] if self.forced and self._one_token is None else None

    @property
    def complete(self) -> bool:
        """Whether the rules let nothing follow."""
        return self._constraint is not None and self._constraint.done

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer."""
        return self._stops.matched

    def num_possible(self, tokens: tuple[int, ...]) -> int:
        """How many of these tokens the rules let pass; none where they fail on them: they would only have saved
        time."""
        if self._constraint is None:
            return len(tokens)
        try:
            return self._constraint.check(tokens)
        except Exception:
            log.exception("drafts could not be checked")
            return 0

    def sample(self, logits: NDArray[Any]) -> tuple[int, tuple[TokenLogprob, ...]]:
        """The next token, and its log-probability where that is wanted. `logits`: see Sampler.sample. Raises
        LogitsError, and whatever the rules raise."""
        if self._constraint is not None:
            one = self._one_token.words(self.forced[-1]) if self.forced and self._one_token else None
            self._sampler.allow(one if one is not None else self._constraint.mask())
        token, logprob = self._sampler.sample(logits, self.num_generated)
        return token, (logprob,) if logprob is not None else ()

    def accept(self, token: int) -> Piece:
        """The answer goes on with `token`, or ends with it."""
        request, stops = self.request, self._stops
        self.num_generated += 1
        if token in self._eos_ids and (self._constraint is not None or not request.ignore_eos):
            return Piece(stops.push(self._detokenizer.flush()), "stop", ended=True)
        if self.forced:
            self.forced.pop()
        self._sampler.accept(token)
        if self._constraint is not None:
            self._constraint.accept(token)
        text = stops.push(self._detokenizer.push(token))
        complete = self.complete
        last = complete or self.num_generated >= request.max_tokens
        if last and stops.matched is None:
            text += stops.push(self._detokenizer.flush())
        if complete or stops.matched is not None:
            return Piece(text, "stop")
        return Piece(text, "length" if last else None)

    def flush(self) -> str:
        """What was held back for a stop string that did not come, when the answer is over."""
        return self._stops.flush() if self._stops.matched is None else ""

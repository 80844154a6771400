"""A generation on the card: its tokens, where they are cached, how the next one is chosen and what becomes of it."""

from __future__ import annotations

import logging
import time
from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import AxpressError, RequestError
from ..kv_cache.row_pool import Rows
from ..request import Delta, FinishReason, GenerationRequest, Sink, Spent, TokenLogprob
from ..sampling.sampler import Sampler, Scratch
from ..structured_output.constraint import Constraint, OneToken
from ..tokenizer.detokenizer import StopChecker
from ..tokenizer.tokenizer import Tokenizer
from .draft_proposer import NO_DRAFT, Draft, DraftProposer

if TYPE_CHECKING:
    from ..kv_cache.cache_bank import CacheBank
    from ..kv_cache.radix_cache import Cursor
    from .engine import Engine

log = logging.getLogger(__name__)

MAX_DRAFT = 12  # guessed tokens a pass checks for one sequence


class Generation:
    """One answer being generated, as its client holds it. `cancel()` may be called from any thread, at any time, more
    than once."""

    __slots__ = ("_engine", "cancelled", "created", "first_pass", "first_token", "id", "request", "sink")

    def __init__(self, engine: Engine, number: int, request: GenerationRequest, sink: Sink) -> None:
        self._engine = engine
        self.id = number
        self.request = request
        self.sink = sink
        self.cancelled = False
        self.created = time.monotonic()
        self.first_pass: float | None = None
        self.first_token: float | None = None

    def cancel(self) -> None:
        """Ends the answer within one pass; its last Delta says "cancelled"."""
        self.cancelled = True
        self._engine.wake()


class Sequence:
    """The engine's side of a generation. Also what the planner sees of it (`Candidate`)."""

    def __init__(
        self, generation: Generation, text: Tokenizer, vocab_size: int, scratch: Scratch, *, drafts: bool
    ) -> None:
        request = generation.request
        self.generation = generation
        self.request = request
        self.tokens = array("i", request.prompt_ids)
        self.num_prompt = len(request.prompt_ids)
        self.num_generated = 0
        self.cache_salt, self.low_priority = request.cache_salt, request.low_priority
        self.sampler = Sampler(vocab_size, request.params, request.prompt_ids, scratch=scratch)
        self.detokenizer = text.detokenizer()
        self.stops = StopChecker(request.stop, request.stop_after, request.stop_after_begin)
        self.constraint: Constraint | None = None
        self._due: list[int] = []  # tokens that must come next, the last one first
        self._only = (
            OneToken(vocab_size) if request.constraint is not None and request.params.logprobs is not None else None
        )
        self._text = text
        self._drafter = DraftProposer(request.prompt_ids, request.prediction) if drafts else None
        self.draft: Draft = NO_DRAFT
        self.finish: FinishReason | None = None
        # where it lives
        self.bank: CacheBank | None = None
        self.cursor: Cursor | None = None
        self.rows = array("i")
        self.high = 0
        self.prefix_owner: Sequence | None = None
        self.prefix_owner_tokens = 0
        self.served = False
        self.last_pass = 0
        # what it cost
        self.cached_tokens = 0
        self._accepted_prediction = 0
        self._rejected_prediction = 0
        self._offered = 0  # guesses in the pass being run
        self._agreed = 0  # of them, those that the answer went on with
        self._taken = 0  # tokens that it went on with, since that pass began

    # ---- what the planner sees ----

    @property
    def num_cached(self) -> int:
        """Tokens whose K and V are in the cache: a beginning of `tokens`."""
        return len(self.rows)

    @property
    def num_pending(self) -> int:
        return len(self.tokens) - len(self.rows)

    @property
    def blocked(self) -> bool:
        prefix_owner = self.prefix_owner
        return prefix_owner is not None and prefix_owner.num_cached < self.prefix_owner_tokens

    @property
    def order(self) -> tuple[bool, int]:
        return self.low_priority, self.generation.id

    @property
    def num_drafts(self) -> int:
        return len(self.draft.tokens)

    @property
    def chance(self) -> float:
        return self._drafter.chance(self.draft) if self._drafter is not None else 0.0

    # ---- its place ----

    def set_rows(self, rows: Rows) -> None:
        """All cached tokens lie in these rows."""
        self.rows = array("i", rows.astype(np.int32).tobytes())
        self.high = int(rows.max()) + 1 if rows.size else 0

    def add_rows(self, rows: Rows) -> None:
        """The next tokens lie in these rows."""
        self.rows.frombytes(rows.astype(np.int32).tobytes())
        self.high = max(self.high, int(rows.max()) + 1)

    # ---- its tokens ----

    def guess(self) -> None:
        """Prepares the guesses of the next pass."""
        self.draft = NO_DRAFT
        if self._drafter is None or len(self.tokens) - len(self.rows) != 1:
            return
        limit = min(MAX_DRAFT, self.request.max_tokens - self.num_generated - 1)
        if self._due and limit > 0:
            self.draft = Draft(tuple(self._due[: -limit - 1 : -1]), 0, certain=True)
            return
        self.draft = self._drafter.propose(limit)
        if self.constraint is not None and self.draft.tokens:
            self.draft = replace(self.draft, tokens=self.draft.tokens[: self._possible(self.draft.tokens)])

    def _possible(self, tokens: tuple[int, ...]) -> int:
        """How many of these guesses the constraint lets pass; none where it fails on them: they would only have saved
        time."""
        assert self.constraint is not None
        try:
            return self.constraint.check(tokens)
        except Exception:
            log.exception("guesses could not be checked")
            return 0

    def offer(self, count: int) -> list[int]:
        """The first `count` guesses, which go into the pass that is about to run."""
        self._offered, self._agreed, self._taken = count, 0, 0
        return list(self.draft.tokens[:count])

    def checked(self, accepted: int) -> None:
        """Of the guesses in the pass `accepted` came true and are cached."""
        if self._drafter is not None and self._offered:
            self._drafter.checked(replace(self.draft, tokens=self.draft.tokens[: self._offered]), accepted)
        self._accepted_prediction, self._rejected_prediction = self._prediction()
        self.draft, self._offered = NO_DRAFT, 0

    def _prediction(self) -> tuple[int, int]:
        """Tokens of the request's prediction that were accepted and rejected, those of the pass being run among
        them."""
        if not self.draft.predicted or not self._offered:
            return self._accepted_prediction, self._rejected_prediction
        return self._accepted_prediction + self._agreed, self._rejected_prediction + self._offered - self._agreed

    def begin(self) -> None:
        """The answer begins, now that the sequence has a place: tokens that must come first join the prompt. May end
        it."""
        if self.constraint is not None or self.request.constraint is None:
            return
        try:
            self.constraint = self.request.constraint()
            self._force()
        except Exception as error:
            self._break(error)

    def sample(self, logits: object) -> None:
        """Chooses the next token, takes those that must follow it, and tells the client. May end the answer (see
        `finish`)."""
        try:
            if self.constraint is not None:
                self.sampler.allow(
                    self._only.words(self._due[-1]) if self._due and self._only else self.constraint.mask()
                )
            token, logprob = self.sampler.sample(logits, self.num_generated)
            # those that were certain before it came without a pass: the prompt was not read yet
            if self.generation.first_token is None:
                self.generation.first_token = time.monotonic()
            self._take(token, (logprob,) if logprob is not None else ())
            self._force()
        except Exception as error:
            self._break(error)

    def _break(self, error: Exception) -> None:
        """This answer ends with the error; no other one is touched."""
        text = str(error)
        if not isinstance(error, AxpressError):
            log.error("an answer failed", exc_info=error)
            text = f"internal error: {type(error).__name__}"
        self.end("error", error=text, error_code=error.code if isinstance(error, RequestError) else None)

    def _force(self) -> None:
        """Takes the tokens that must come next. Where log-probabilities are wanted the model is asked for each of them
        all the same."""
        if self.constraint is None or self.finish is not None:
            return
        if not self._due:
            self._due = self.constraint.forced()[::-1]
        while self._due and self._only is None and self.finish is None:
            self._take(self._due[-1], ())
        if self.finish is None and self.constraint.done:  # complete before its first token
            self.end("stop")

    def _take(self, token: int, logprobs: tuple[TokenLogprob, ...]) -> None:
        request, constraint = self.request, self.constraint
        self.num_generated += 1
        if self._agreed < self._offered and self._agreed == self._taken and token == self.draft.tokens[self._agreed]:
            self._agreed += 1
        self._taken += 1
        if token in self._text.eos_ids and (constraint is not None or not request.ignore_eos):
            self.end("stop", self.stops.push(self.detokenizer.flush()), 1, logprobs)
            return
        if self._due:
            self._due.pop()
        self.sampler.accept(token)
        self.tokens.append(token)
        if self._drafter is not None:
            self._drafter.append(token)
        if constraint is not None:
            constraint.accept(token)
        text = self.stops.push(self.detokenizer.push(token))
        complete = constraint is not None and constraint.done
        last = complete or self.num_generated >= request.max_tokens
        if last and self.stops.matched is None:
            text += self.stops.push(self.detokenizer.flush())
        if last or self.stops.matched is not None:
            self.end("stop" if complete or self.stops.matched is not None else "length", text, 1, logprobs)
        else:
            self.generation.sink(Delta(text, 1, None, logprobs))

    def end(
        self, reason: FinishReason, text: str = "", num_tokens: int = 0, logprobs: tuple[TokenLogprob, ...] = (),
        error: str | None = None, error_code: str | None = None,
    ) -> None:  # fmt: skip
        """The answer is over: the last Delta, with what it cost."""
        self.finish = reason
        if self.stops.matched is None:
            text += self.stops.flush()
        self.generation.sink(Delta(text, num_tokens, reason, logprobs, error, self.spent(), error_code))

    def spent(self) -> Spent:
        """What the answer cost so far."""
        g, now = self.generation, time.monotonic()
        return Spent(
            self.num_prompt,
            self.num_generated,
            min(self.cached_tokens, self.num_prompt),
            *self._prediction(),
            min(g.first_pass or now, g.first_token or now) - g.created,
            (g.first_token or now) - g.created,
            now - g.created,
        )

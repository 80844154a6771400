"""A request on its way: its tokens, the rows they are cached in, its drafts, and how far it is."""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import AxpressError, FailureKind, RequestError, failure_kind
from ..kv_cache.cache_bank import CachedSequence
from ..kv_cache.radix_cache import Cursor
from ..kv_cache.row_pool import Rows
from ..request import Delta, FinishReason, GenerationRequest, Sink, Spent, TokenLogprob
from .draft_proposer import AnswerDrafts, DraftProposer
from .output_processor import OutputProcessor, embedding, logits_of
from .sequence_images import SequenceImages, keyed_tokens

log = logging.getLogger(__name__)

MAX_DRAFT = 24  # tokens of a draft that a pass verifies for one sequence


class Generation:
    """One answer being generated, as its client holds it. `cancel()` may be called from any thread, at any time, more
    than once."""

    __slots__ = ("batch", "cancelled", "created", "first_pass", "first_token", "id", "request", "sink", "wake")

    def __init__(
        self, number: int, request: GenerationRequest, sink: Sink, wake: Callable[[], None], batch: int | None = None
    ) -> None:
        self.wake = wake  # the engine that has it; another one where that one's card failed
        self.id = number
        self.batch = number if batch is None else batch  # those that wait in the queue as one
        self.request = request
        self.sink = sink
        self.cancelled = False
        self.created = time.monotonic()
        self.first_pass: float | None = None
        self.first_token: float | None = None

    def cancel(self) -> None:
        """Ends the answer within one pass; its last Delta says "cancelled"."""
        self.cancelled = True
        self.wake()


class SequenceState(Enum):
    """How far a request is. Only the scheduler changes it."""

    WAITING = "waiting"  # for its first place
    PREFILLING = "prefilling"  # has a place; its prompt is being computed
    RUNNING = "running"  # its answer is
    PREEMPTED = "preempted"  # gave its rows to others, goes on later
    FINISHED = "finished"


class Sequence:
    """What the engine knows of a generation; also what the planner (`Candidate`) and a bank (`CachedSequence`) see of
    it.

    More than 20 attributes: both of those are asked for every sequence at every pass, and read them in place."""

    def __init__(
        self, generation: Generation, output: OutputProcessor, proposer: DraftProposer | None, axes: int = 1
    ) -> None:
        """`axes`: of the model's positions."""
        request = generation.request
        self.generation = generation
        self.request = request
        self.output = output
        self.state = SequenceState.WAITING
        self.tokens = keyed_tokens(request)
        self.images = SequenceImages(request, axes) if request.images else None
        self.num_prompt = len(request.prompt_ids)
        self.cache_salt, self.low_priority = request.cache_salt, request.low_priority
        self.drafts = AnswerDrafts(proposer)
        self.finish: FinishReason | None = None
        # its place
        self.bank: int | None = None  # index
        self.cursor: Cursor | None = None
        self.rows = array("i")
        self.high = 0  # 1 + the highest row
        self.state_slot = 0  # of what recurrent layers know of the cached tokens
        self.cuts: tuple[int, ...] = ()  # behind so many tokens such states are kept
        self.prefix_owner: CachedSequence | None = None
        self.prefix_owner_tokens = 0
        self.served = False  # in this round
        self.last_pass = 0
        self.cached_tokens = 0  # tokens that were found in the cache
        self.num_bad = 0  # passes in a row that gave nonsense for it

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
        if self.images is not None and self.images.missing is not None:
            return True
        owner = self.prefix_owner
        return owner is not None and owner.num_cached < self.prefix_owner_tokens

    @property
    def needs_chunk(self) -> bool:
        """Whether it has tokens that only a chunk can place."""
        return self.images is not None and self.images.needs_chunk(len(self.rows))

    @property
    def order(self) -> tuple[bool, int]:
        return self.low_priority, self.generation.id

    @property
    def num_drafts(self) -> int:
        return len(self.drafts.draft.tokens)

    @property
    def chance(self) -> float:
        return self.drafts.chance

    @property
    def num_generated(self) -> int:
        """Tokens of the answer so far."""
        return self.output.num_generated

    @property
    def num_to_generate(self) -> int:
        """Tokens that the answer may still take."""
        return self.request.max_tokens - self.output.num_generated if self.request.generates else 0

    # ---- its place ----

    def set_rows(self, rows: Rows) -> None:
        """All cached tokens lie in these rows."""
        self.rows = array("i", rows.astype(np.int32).tobytes())
        self.high = int(rows.max()) + 1 if rows.size else 0

    def add_rows(self, rows: Rows) -> None:
        """The next tokens lie in these rows."""
        self.rows.frombytes(rows.astype(np.int32).tobytes())
        self.high = max(self.high, int(rows.max()) + 1)

    def lose_place(self) -> None:
        """What the card held of it is lost; its tokens are not."""
        self.cursor = self.bank = self.prefix_owner = None
        self.prefix_owner_tokens, self.served = 0, False
        self.rows, self.high, self.state_slot = array("i"), 0, 0
        self.drafts.clear()
        if self.images is not None:
            self.images.release()

    # ---- its answer ----

    def begin(self) -> None:
        """The sequence has a place: tokens that must come first join the prompt. May end the answer (see `finish`)."""
        try:
            self.output.begin()
            self._take_forced()
        except Exception as error:
            self.fail(error)

    def propose_draft(self) -> None:
        """Prepares the draft of the next pass, if it is to be one of the answer's."""
        if len(self.tokens) - len(self.rows) != 1:
            self.drafts.clear()
            return
        self.drafts.propose(min(MAX_DRAFT, self.num_to_generate - 1), self.output.forced, self.output.num_possible)

    def sample(self, logits: NDArray[Any]) -> None:
        """Chooses the next token, takes those that must follow it, and tells the client. May end the answer; one that
        generates nothing always ends."""
        try:
            if not self.request.generates:
                self._end_unsampled(logits)
                return
            token, logprobs = self.output.sample(logits)
            if self.generation.first_token is None:  # forced ones before it came without a pass: the prompt was unread
                self.generation.first_token = time.monotonic()
            self._take(token, logprobs)
            if self.finish is None:
                self.output.find_forced()
                self._take_forced()
        except Exception as error:
            self.fail(error)

    def _end_unsampled(self, values: NDArray[Any]) -> None:
        request, self.generation.first_token = self.request, time.monotonic()
        if request.dimensions:
            self.end("stop", embedding=embedding(values, request.dimensions))
        else:
            self.end("stop", logits=logits_of(request.scored, values))

    def _take_forced(self) -> None:
        """Takes tokens that come without asking the model. Where log-probabilities are wanted there are none."""
        while self.finish is None and (token := self.output.next_forced) is not None:
            self._take(token, ())
        if self.finish is None and self.output.complete:  # before its first token
            self.end("stop")

    def _take(self, token: int, logprobs: tuple[TokenLogprob, ...]) -> None:
        self.drafts.take(token)
        piece = self.output.accept(token)
        self.drafts.append(token)
        if not piece.ended:
            self.tokens.append(token)
        if piece.finish is not None:
            self.end(piece.finish, piece.text, 1, logprobs)
        else:
            self.generation.sink(Delta(piece.text, 1, None, logprobs))

    def fail(self, error: Exception) -> None:
        """This answer ends with the error; no other one is touched."""
        text = str(error)
        if not isinstance(error, AxpressError):
            log.error("an answer failed", exc_info=error)
            text = f"internal error: {type(error).__name__}"
        code = error.code if isinstance(error, RequestError) else None
        self.end("error", error=text, error_code=code, failure=failure_kind(error))

    def end(
        self,
        reason: FinishReason,
        text: str = "",
        num_tokens: int = 0,
        logprobs: tuple[TokenLogprob, ...] = (),
        *,
        error: str | None = None,
        error_code: str | None = None,
        failure: FailureKind | None = None,
        embedding: NDArray[np.float32] | None = None,
        logits: NDArray[np.float32] | None = None,
    ) -> None:
        """The answer is over: the last Delta, with what it cost."""
        self.finish = reason
        text += self.output.flush()
        stop = self.output.stop_string if reason == "stop" else None
        spent = self.spent()
        self.generation.sink(
            Delta(text, num_tokens, reason, logprobs, error, spent, error_code, failure, stop, embedding, logits)
        )

    def spent(self) -> Spent:
        """What the answer cost so far."""
        g, now = self.generation, time.monotonic()
        return Spent(
            self.num_prompt,
            self.num_generated,
            min(self.cached_tokens, self.num_prompt),
            *self.drafts.prediction_counts(),
            min(g.first_pass or now, g.first_token or now) - g.created,
            (g.first_token or now) - g.created,
            now - g.created,
        )


class ScheduledSequence(NamedTuple):
    """A sequence's share of the pass being run: its queries from `query` on, their rows, `num_tokens` known tokens and
    `num_drafts` of a draft. `states`: of models with recurrent layers, slots for the states behind so many of the
    sequence's tokens, the last behind all of these."""

    sequence: Sequence
    query: int
    rows: Rows
    num_tokens: int
    num_drafts: int
    states: tuple[tuple[int, int], ...] = ()

"""The engine: one thread that plans, runs, samples and commits, and the queue in front of it."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from typing import Any, Literal

from axpress.core.detokenize import StopChecker, check_stop
from axpress.core.errors import AxpressError, ContextOverflow, EngineClosed, QueueFull, RequestError, RuntimeCallError
from axpress.core.model import Model, Progress, open_model
from axpress.core.planner import Planner
from axpress.core.request import Delta, FinishReason, GenerationRequest, Sink
from axpress.core.sampler import Sampler, Scratch, check_params
from axpress.core.step import Step

log = logging.getLogger(__name__)

State = Literal["ready", "draining", "failed", "closed"]
STEP_TIMEOUT_MS = 30_000  # no pass of any model takes a tenth of this: the card hangs


class Generation:
    """One answer being generated. `cancel()` may be called from any thread, at any time, more than once."""

    __slots__ = ("_engine", "cancelled", "created", "first_token", "id", "request", "sink")

    def __init__(self, engine: Engine, number: int, request: GenerationRequest, sink: Sink) -> None:
        self._engine = engine
        self.id = number
        self.request = request
        self.sink = sink
        self.cancelled = False
        self.created = time.monotonic()
        self.first_token: float | None = None

    def cancel(self) -> None:
        """Ends the answer within one pass; its last Delta says "cancelled"."""
        self.cancelled = True
        self._engine._wake()


class Sequence:
    """A generation on the card: its tokens, how many of them are cached, and how the next one is chosen and read."""

    __slots__ = ("detokenizer", "generation", "num_cached", "num_generated", "sampler", "stops", "tokens")

    def __init__(self, generation: Generation, model: Model, scratch: Scratch) -> None:
        request = generation.request
        self.generation = generation
        self.tokens = list(request.prompt_ids)
        self.num_cached = 0
        self.num_generated = 0
        self.sampler = Sampler(model.info.vocab_size, request.params, request.prompt_ids, scratch=scratch)
        self.detokenizer = model.text.detokenizer()
        self.stops = StopChecker(request.stop)

    @property
    def num_pending(self) -> int:
        return len(self.tokens) - self.num_cached


class Engine:
    """Serves one model. `submit` from any thread; answers arrive at each request's sink on the engine's own thread."""

    def __init__(self, model: Model, *, max_queue: int = 32, step_timeout_ms: int = STEP_TIMEOUT_MS) -> None:
        self.model, self.info, self.text, self.package = model, model.info, model.text, model.package
        self.max_queue = max_queue
        self.state: State = "ready"
        self.reason: str | None = None
        self._step_timeout_ms = step_timeout_ms
        self._planner = Planner(model.program.groups, model.costs.groups, chunks=model.modes.chunks)
        self._step = Step(self._planner.max_width)
        self._scratch = Scratch(model.info.vocab_size)
        self._waiting: deque[Generation] = deque()
        self._running: Sequence | None = None
        self._change = threading.Condition()
        self._numbers = itertools.count(1)
        self._totals = {"prompt_tokens": 0, "generated_tokens": 0, "steps": 0, "finished": 0, "cancelled": 0}
        self._last_progress = time.monotonic()
        self._mean_seconds = 1.0
        self._thread = threading.Thread(target=self._main, name="axpress-engine", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        device: str | int = "auto",
        profile: str | None = None,
        max_queue: int = 32,
        settings: dict[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Engine:
        """Loads a model directory and starts serving it; blocks until a token can be had. See `open_model` for errors."""
        return cls(open_model(directory, device, profile, settings, progress), max_queue=max_queue)

    # ---- any thread ----

    def submit(self, request: GenerationRequest, sink: Sink) -> Generation:
        """Queues a request. Raises RequestError or ContextOverflow (can never be served), QueueFull (try later), EngineClosed."""
        self._check(request)
        with self._change:
            if self.state != "ready":
                raise EngineClosed(f"the engine is {self.state}" + (f": {self.reason}" if self.reason else ""))
            if len(self._waiting) - (self._running is None) >= self.max_queue:  # an idle engine takes one at once
                wait = max(1.0, self._mean_seconds * (len(self._waiting) + 1))
                raise QueueFull(f"{len(self._waiting)} requests are waiting and the queue holds {self.max_queue}; try again in {wait:.0f} s", wait)
            generation = Generation(self, next(self._numbers), request, sink)
            self._waiting.append(generation)
            self._change.notify()
        return generation

    def _check(self, request: GenerationRequest) -> None:
        ids, context = request.prompt_ids, self.info.context_length
        if not ids:
            raise RequestError("the prompt is empty: a model needs at least one token to continue", "messages")
        if len(ids) >= context:
            raise ContextOverflow(f"the prompt has {len(ids)} tokens, the model's context holds {context} with the answer; shorten the prompt")
        if request.max_tokens < 1:
            raise RequestError(f"max_tokens is {request.max_tokens}; an answer has at least one token", "max_tokens")
        if len(ids) + request.max_tokens > context:
            raise ContextOverflow(
                f"the prompt has {len(ids)} tokens and {request.max_tokens} are asked for, the model's context holds {context}; "
                f"ask for at most {context - len(ids)} or shorten the prompt", "max_tokens")  # fmt: skip
        known = self.package.vocab_size or self.info.vocab_size
        if min(ids) < 0 or max(ids) >= known:
            raise RequestError(f"prompt token ids go from 0 to {known - 1}", "prompt")
        check_params(request.params, self.info.vocab_size)
        check_stop(request.stop)

    def stats(self) -> dict[str, Any]:
        """Counters and gauges: requests running and waiting, tokens in and out, passes, seconds since the last one."""
        with self._change:
            return {
                **self._totals,
                "num_running": int(self._running is not None),
                "num_waiting": len(self._waiting),
                "rows_used": self._running.num_cached if self._running else 0,
                "rows": self.info.context_length,
                "seconds_since_progress": time.monotonic() - self._last_progress,
            }

    def close(self, drain_s: float = 0.0) -> None:
        """Stops taking requests, lets running and waiting ones finish for `drain_s` seconds, ends the rest, frees the card."""
        with self._change:
            if self.state == "closed":
                return
            if self.state == "ready":
                self.state = "draining"
            self._change.notify_all()
            self._change.wait_for(lambda: not self._waiting and self._running is None, timeout=max(0.0, drain_s))
            self.state = "closed"
            self._change.notify_all()
        self._thread.join()
        self.model.close()

    def _wake(self) -> None:
        with self._change:
            self._change.notify_all()

    # ---- the engine's thread ----

    def _main(self) -> None:
        try:
            self.model.card.bind_thread()
            while self._next():
                self._pass()
        except Exception as error:
            self._fail(error)
        finally:
            with self._change:
                left = [*([self._running.generation] if self._running else []), *self._waiting]
                self._running = None
                self._waiting.clear()
                self._change.notify_all()
            for generation in left:
                self._finish(generation, "error" if self.reason else "cancelled", error=self.reason or "the server is shutting down")

    def _next(self) -> bool:
        """Waits for work and drops what was cancelled. False when the engine is to end."""
        while True:
            with self._change:
                dropped = [g for g in self._waiting if g.cancelled]
                if dropped:
                    self._waiting = deque(g for g in self._waiting if not g.cancelled)
                if self._running and self._running.generation.cancelled:
                    dropped.append(self._running.generation)
                    self._running = None
                if self.state == "closed":
                    self._waiting.extendleft(reversed(dropped))
                    return False
                chosen = self._waiting.popleft() if self._running is None and self._waiting else None
                if not dropped and chosen is None and self._running is None:
                    self._change.notify_all()  # close() waits for idleness
                    self._change.wait()
                    continue
                if chosen is not None:
                    self._running = Sequence(chosen, self.model, self._scratch)
            for generation in dropped:
                self._finish(generation, "cancelled")
            if self._running is not None:
                return True

    def _pass(self) -> None:
        """One pass of the running sequence: a piece of its prompt, or its next token."""
        sequence = self._running
        assert sequence is not None
        pending = sequence.num_pending
        if pending > 1:
            planned = self._planner.prompt(sequence.num_cached, pending)
            slot, count = planned.slot, planned.num_tokens
        else:
            slot, count = self._planner.decode(sequence.num_cached), 1
        first, step = sequence.num_cached, self._step
        step.reset(slot)
        step.tail_free = True
        wanted = count == pending
        step.add_chain(sequence.tokens[first : first + count], first, first, step.add_view(0, first), wanted)
        self.model.program.run(step, self._step_timeout_ms)
        sequence.num_cached = first + count
        self._totals["steps"] += 1
        self._last_progress = time.monotonic()
        if wanted:
            self._commit(sequence)

    def _commit(self, sequence: Sequence) -> None:
        """Samples the next token from the pass's logits and hands its text on."""
        generation = sequence.generation
        request = generation.request
        try:
            token, logprob = sequence.sampler.sample(self.model.program.logits(0), sequence.num_generated)
        except AxpressError as error:
            self._end(sequence, "error", error=str(error))
            return
        if sequence.num_generated == 0:
            generation.first_token = self._last_progress
            self._totals["prompt_tokens"] += len(request.prompt_ids)
        sequence.num_generated += 1
        self._totals["generated_tokens"] += 1
        logprobs = (logprob,) if logprob is not None else ()
        if token in self.text.eos_ids and not request.ignore_eos:
            self._end(sequence, "stop", text=sequence.stops.push(sequence.detokenizer.flush()), logprobs=logprobs, num_tokens=1)
            return
        sequence.sampler.accept(token)
        sequence.tokens.append(token)
        text = sequence.stops.push(sequence.detokenizer.push(token))
        if sequence.stops.matched is not None:
            self._end(sequence, "stop", text=text, logprobs=logprobs, num_tokens=1)
        elif sequence.num_generated >= request.max_tokens:
            text += sequence.stops.push(sequence.detokenizer.flush())
            self._end(sequence, "stop" if sequence.stops.matched is not None else "length", text=text, logprobs=logprobs, num_tokens=1)
        else:
            generation.sink(Delta(text, 1, None, logprobs))

    def _end(self, sequence: Sequence, reason: FinishReason, **delta: Any) -> None:
        if sequence.stops.matched is None:
            delta["text"] = delta.get("text", "") + sequence.stops.flush()
        with self._change:
            self._running = None
            self._change.notify_all()
        self._finish(sequence.generation, reason, **delta)

    def _finish(
        self, generation: Generation, reason: FinishReason, text: str = "", num_tokens: int = 0, logprobs: Any = (), error: str | None = None
    ) -> None:
        self._totals["cancelled" if reason == "cancelled" else "finished"] += 1
        self._mean_seconds += 0.2 * (time.monotonic() - generation.created - self._mean_seconds)
        generation.sink(Delta(text, num_tokens, reason, logprobs, error))

    def _fail(self, error: Exception) -> None:
        """The card failed in the middle of a pass: nothing more can be computed until it is opened again."""
        card_failed = isinstance(error, RuntimeCallError)
        self.reason = str(error) if card_failed else f"internal error: {error!r}"
        self.state = "failed"
        log.error("the engine stopped: %s", self.reason, exc_info=None if card_failed else error)

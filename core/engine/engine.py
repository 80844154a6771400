"""The engine: one thread that plans, runs, samples and commits, and the queue in front of it."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Literal

from ..device.model_loader import Model, Progress, open_model
from ..errors import ContextOverflow, EngineClosed, QueueFull, RequestError, RuntimeCallError
from ..request import Delta, FinishReason, GenerationRequest, Sink, Spent
from ..sampling.sampler import check_params
from ..tokenizer.detokenizer import check_stop
from .scheduler import Scheduler
from .sequence import Generation, Sequence
from .snapshot import EngineSnapshot, Live

log = logging.getLogger(__name__)

State = Literal["ready", "draining", "failed", "closed"]
STEP_TIMEOUT_MS = 30_000  # no pass of any model takes a tenth of this: the card hangs


class Engine:
    """Serves one model. `submit` from any thread; answers arrive at each request's sink on the engine's own thread."""

    def __init__(
        self,
        model: Model,
        *,
        max_queue: int = 32,
        max_running: int = 16,
        exact: bool = False,
        drafts: bool = True,
        trace: Path | None = None,
        step_timeout_ms: int = STEP_TIMEOUT_MS,
        threaded: bool = True,
    ) -> None:
        """`exact`: single decodes only, for cards whose graphs differ in the last bit. `drafts`: check guessed tokens.
        `trace`: write every pass to this file in Chrome's trace format. `threaded` False: nothing runs by itself, the
        caller calls `step()`."""
        self.model, self.info, self.text, self.package = model, model.info, model.text, model.package
        self.max_queue, self.max_running = max_queue, max_running
        self.state: State = "ready"
        self.reason: str | None = None
        self.scheduler = Scheduler(model, exact=exact, drafts=drafts, trace=trace, step_timeout_ms=step_timeout_ms)
        self._waiting: deque[Generation] = deque()
        self._change = threading.Condition()
        self._numbers = itertools.count(1)
        names = ("prompt_tokens", "cached_tokens", "generated_tokens", "finished", "cancelled")
        self._totals = dict.fromkeys(names, 0)
        self._mean_seconds = 1.0
        self.live = Live(
            self.scheduler, lambda: len(self._waiting), lambda: self._totals["generated_tokens"], self.wake
        )
        self._thread = threading.Thread(target=self._main, name="axpress-engine", daemon=True) if threaded else None
        if self._thread is not None:
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
        *,
        banks: int | None = None,
        max_running: int = 16,
        **options: Any,
    ) -> Engine:
        """Loads a model directory and starts serving it; blocks until a token can be had. See `open_model` for errors,
        the constructor for `options`."""
        model = open_model(directory, device, profile, settings, progress, banks=banks, logits_slots=max_running)
        try:
            return cls(model, max_queue=max_queue, max_running=max_running, **options)
        except BaseException:
            model.close()
            raise

    # ---- any thread ----

    def submit(self, request: GenerationRequest, sink: Sink) -> Generation:
        """Queues a request. Raises RequestError or ContextOverflow (can never be served), QueueFull (try later),
        EngineClosed."""
        return self.submit_all([request], [sink])[0]

    def submit_all(self, requests: list[GenerationRequest], sinks: list[Sink]) -> list[Generation]:
        """Queues several requests, all or none (choices of one prompt). Raises as `submit`."""
        for request in requests:
            self._check(request)
        with self._change:
            if self.state != "ready":
                raise EngineClosed(f"the engine is {self.state}" + (f": {self.reason}" if self.reason else ""))
            idle = max(0, self.max_running - self.scheduler.num_running) if not self.scheduler.preempted else 0
            if len(self._waiting) + len(requests) > self.max_queue + idle:
                wait = max(1.0, self._mean_seconds * (len(self._waiting) + 1) / self.max_running)
                waiting = max(0, len(self._waiting) - idle)  # the first of them are about to run
                more = f", this one brings {len(requests)}" if len(requests) > 1 else ""
                are = "request is" if waiting == 1 else "requests are"
                text = f"{waiting} {are} waiting{more} and the queue holds {self.max_queue}; try again in {wait:.0f} s"
                raise QueueFull(text, wait)
            made = [Generation(self, next(self._numbers), r, s) for r, s in zip(requests, sinks, strict=True)]
            self._waiting.extend(made)
            self.scheduler.room_changed = True
            self._change.notify_all()
        return made

    def _check(self, request: GenerationRequest) -> None:
        ids, context = request.prompt_ids, self.info.context_length
        if not ids:
            raise RequestError("the prompt is empty: a model needs at least one token to continue", "messages")
        if len(ids) >= context:
            raise ContextOverflow(
                f"the prompt has {len(ids)} tokens, the model's context holds {context} with the answer; shorten the"
                " prompt"
            )
        if request.max_tokens < 1:
            raise RequestError(f"max_tokens is {request.max_tokens}; an answer has at least one token", "max_tokens")
        if len(ids) + request.max_tokens > context:
            raise ContextOverflow(
                f"the prompt has {len(ids)} tokens and {request.max_tokens} are asked for, the model's context holds"
                f" {context}; ask for at most {context - len(ids)} or shorten the prompt",
                "max_tokens",
            )
        known = self.package.vocab_size or self.info.vocab_size
        for what, tokens in (("prompt", ids), ("prediction", request.prediction)):
            if tokens and (min(tokens) < 0 or max(tokens) >= known):
                raise RequestError(f"{what} token ids go from 0 to {known - 1}", what)
        check_params(request.params, self.info.vocab_size)
        check_stop(request.stop)

    def stats(self) -> dict[str, Any]:
        """Counters and gauges: requests, tokens, rows, passes and seconds by kind, drafts, preemptions, seconds since
        the last pass."""
        s = self.scheduler
        with self._change:
            return {
                **self._totals,
                **s.totals,
                "steps": s.totals["decode_passes"] + s.totals["chunk_passes"],
                "seconds": dict(s.seconds),
                "num_running": s.num_running,
                "num_waiting": len(self._waiting) + len(s.preempted),
                "rows_used": sum(b.pool.num_used for b in s.banks),
                "rows": sum(b.pool.num_rows for b in s.banks),
                "rows_by_bank": [b.pool.num_used for b in s.banks],
                "evicted_rows": sum(b.evicted_rows for b in s.banks),
                "moved_rows": sum(b.moved_rows for b in s.banks),
                "seconds_since_progress": time.monotonic() - s.last_progress,
            }

    def snapshot(self, wait_s: float = 2.0) -> EngineSnapshot:
        """What the engine is at (see `live`). Waits for the pass that runs; TimeoutError where that takes longer than
        `wait_s` seconds, EngineClosed once the engine ended. `live.ask()` is the same without waiting."""
        return self.live.take() if self._thread is None else self.live.ask().result(wait_s)

    def close(self, drain_s: float = 0.0) -> None:
        """Stops taking requests, lets running and waiting ones finish for `drain_s` seconds, ends the rest, frees the
        card."""
        with self._change:
            if self.state == "closed":
                return
            if self.state == "ready":
                self.state = "draining"
            self._change.notify_all()
            self._change.wait_for(lambda: not self._busy(), timeout=max(0.0, drain_s))
            self.state = "closed"
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join()
        else:
            self._end_all()
        self.scheduler.close()
        self.model.close()

    def wake(self) -> None:
        """Makes the engine look at its queue again."""
        with self._change:
            self._change.notify_all()

    def _busy(self) -> bool:
        return bool(self._waiting or self.scheduler.preempted or self.scheduler.num_running)

    # ---- the engine's thread ----

    def _main(self) -> None:
        try:
            self.model.card.bind_thread()
            while self._gather():
                self._pass()
        except BaseException as error:  # a library's panic is no Exception; whatever it was, nobody works here any more
            self._fail(error)
        finally:
            self._end_all()

    def step(self) -> bool:
        """Runs one pass on the calling thread; False when there is nothing to do. For an engine made with
        `threaded=False`."""
        self._drop_cancelled()
        with self._change:
            self._admit()
            if not self.scheduler.num_running:
                return False
        self._pass()
        return True

    def _pass(self) -> None:
        for sequence in self.scheduler.run_pass():
            self._account(sequence)

    def _gather(self) -> bool:
        """Ends what was cancelled, takes in what fits, waits while there is nothing to do. False when the engine is to
        end."""
        while True:
            self._drop_cancelled()
            if self.live.asked:
                self.live.take_asked()
            with self._change:
                if self.state == "closed":
                    return False
                self._admit()
                if self.scheduler.num_running:
                    return True
                if self.live.asked or any(g.cancelled for g in self._waiting):
                    continue
                self._change.notify_all()  # close() waits for idleness
                self._change.wait()

    def _drop_cancelled(self) -> None:
        with self._change:
            dropped = [g for g in self._waiting if g.cancelled]
            if dropped:
                self._waiting = deque(g for g in self._waiting if not g.cancelled)
                self.scheduler.room_changed = True
            gone = self.scheduler.drop_cancelled()
        for generation in dropped:
            self._unserved(generation, "cancelled")
        for sequence in gone:
            sequence.end("cancelled")
            self._account(sequence)

    def _admit(self) -> None:
        """Takes in preempted sequences first, then requests in order, background ones last, while there is room."""
        scheduler = self.scheduler
        while scheduler.room_changed and scheduler.num_running < self.max_running:
            if scheduler.preempted:
                if scheduler.enter(scheduler.preempted[0]):
                    scheduler.preempted.pop(0)
            elif self._waiting:
                generation = next((g for g in self._waiting if not g.request.low_priority), self._waiting[0])
                try:
                    sequence = scheduler.make(generation)
                    entered = scheduler.enter(sequence)
                except Exception as error:  # no memory, say: that request's trouble, not the others'
                    self._waiting.remove(generation)
                    self._unserved(generation, "error", str(error))
                    continue
                if entered:
                    self._waiting.remove(generation)
                    if sequence.finish is not None:  # what had to come was the whole answer
                        self._account(sequence)
            else:
                return

    def _account(self, sequence: Sequence) -> None:
        """Counts an answer that ended."""
        totals, generation = self._totals, sequence.generation
        totals["cancelled" if sequence.finish == "cancelled" else "finished"] += 1
        totals["prompt_tokens"] += sequence.num_prompt
        totals["cached_tokens"] += min(sequence.cached_tokens, sequence.num_prompt)
        totals["generated_tokens"] += sequence.num_generated
        self._mean_seconds += 0.2 * (time.monotonic() - generation.created - self._mean_seconds)

    def _unserved(self, generation: Generation, reason: FinishReason, error: str | None = None) -> None:
        """Ends a request that never ran."""
        self._totals["cancelled" if reason == "cancelled" else "finished"] += 1
        waited = time.monotonic() - generation.created
        spent = Spent(len(generation.request.prompt_ids), 0, queue_s=waited, first_token_s=waited, total_s=waited)
        generation.sink(Delta("", 0, reason, (), error, spent))

    def _end_all(self) -> None:
        """The engine ends: everybody who still waits or runs is told why."""
        reason: FinishReason = "error" if self.reason else "cancelled"
        error = self.reason or "the server is shutting down"
        self.live.close(error)
        with self._change:
            waiting, running = list(self._waiting), self.scheduler.drop_all()
            self._waiting.clear()
            self._change.notify_all()
        for sequence in running:
            sequence.end(reason, error=error)
            self._account(sequence)
        for generation in waiting:
            self._unserved(generation, reason, error)

    def _fail(self, error: BaseException) -> None:
        """The card failed in the middle of a pass: nothing more can be computed until it is opened again."""
        card_failed = isinstance(error, RuntimeCallError)
        self.reason = str(error) if card_failed else f"internal error: {error!r}"
        self.state = "failed"
        log.error("the engine stopped: %s", self.reason, exc_info=None if card_failed else error)

"""The engine: one thread that plans, runs, samples and commits, and the queue in front of it."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from array import array
from collections import deque
from pathlib import Path
from typing import Any, Literal, NamedTuple

from axpress.core.bank import Bank
from axpress.core.detokenize import check_stop
from axpress.core.drafts import NO_DRAFT
from axpress.core.errors import ContextOverflow, EngineClosed, QueueFull, RequestError, RuntimeCallError
from axpress.core.model import Model, Progress, open_model
from axpress.core.planner import Part, Pass, Planner
from axpress.core.request import Delta, FinishReason, GenerationRequest, Sink, Spent
from axpress.core.rows import Rows
from axpress.core.sampler import Scratch, check_params
from axpress.core.sequence import Generation, Sequence
from axpress.core.step import Step
from axpress.core.trace import Trace

log = logging.getLogger(__name__)

State = Literal["ready", "draining", "failed", "closed"]
STEP_TIMEOUT_MS = 30_000  # no pass of any model takes a tenth of this: the card hangs
HEADROOM = 64  # rows a new sequence should find free beyond its prompt, so that it does not push another out at once


class Seat(NamedTuple):
    """One sequence's place in the pass being run: its queries from `query` on, their rows, how many are known and how many guessed."""

    sequence: Sequence
    query: int
    rows: Rows
    num_tokens: int
    num_drafts: int


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
        """`exact`: single decodes only, for cards whose graphs differ in the last bit. `drafts`: check guessed tokens. `trace`: write
        every pass to this file in Chrome's trace format. `threaded` False: nothing runs by itself, the caller calls `step()`."""
        self.model, self.info, self.text, self.package = model, model.info, model.text, model.package
        self.max_queue, self.max_running = max_queue, max_running
        self.state: State = "ready"
        self.reason: str | None = None
        self._step_timeout_ms = step_timeout_ms
        program = model.program
        self.planner = Planner(
            program.groups,
            model.costs.groups,
            model.costs.head,
            chunks=model.modes.chunks and not exact,
            max_parts=program.logits_slots,
            drafts=drafts,
        )
        self.banks = [Bank(i, program.bank_rows, self.planner) for i in range(program.num_banks)]
        self._step = Step(self.planner.max_width)
        self._scratch = Scratch(model.info.vocab_size)
        self._trace = Trace(trace, model.info) if trace else None
        self._drafts = self.planner.drafts
        self._waiting: deque[Generation] = deque()
        self._preempted: list[Sequence] = []
        self._room_changed = True
        self._change = threading.Condition()
        self._numbers = itertools.count(1)
        self._passes = 0
        self._totals = dict.fromkeys(
            (
                *("prompt_tokens", "cached_tokens", "generated_tokens", "finished", "cancelled", "preemptions"),
                *("drafted_tokens", "accepted_draft_tokens", "decode_passes", "chunk_passes", "chunk_queries", "heads"),
            ),
            0,
        )
        self._seconds = {"decode": 0.0, "chunk": 0.0, "plan": 0.0}
        self._last_progress = time.monotonic()
        self._mean_seconds = 1.0
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
        """Loads a model directory and starts serving it; blocks until a token can be had. See `open_model` for errors, the
        constructor for `options`."""
        model = open_model(directory, device, profile, settings, progress, banks=banks, logits_slots=max_running)
        try:
            return cls(model, max_queue=max_queue, max_running=max_running, **options)
        except BaseException:
            model.close()
            raise

    # ---- any thread ----

    def submit(self, request: GenerationRequest, sink: Sink) -> Generation:
        """Queues a request. Raises RequestError or ContextOverflow (can never be served), QueueFull (try later), EngineClosed."""
        return self.submit_all([request], [sink])[0]

    def submit_all(self, requests: list[GenerationRequest], sinks: list[Sink]) -> list[Generation]:
        """Queues several requests, all or none (choices of one prompt). Raises as `submit`."""
        for request in requests:
            self._check(request)
        with self._change:
            if self.state != "ready":
                raise EngineClosed(f"the engine is {self.state}" + (f": {self.reason}" if self.reason else ""))
            idle = max(0, self.max_running - self._num_running()) if not self._preempted else 0
            if len(self._waiting) + len(requests) > self.max_queue + idle:
                wait = max(1.0, self._mean_seconds * (len(self._waiting) + 1) / self.max_running)
                waiting = f"{len(self._waiting)} requests are waiting and the queue holds {self.max_queue}"
                raise QueueFull(f"{waiting}; try again in {wait:.0f} s", wait)
            made = [Generation(self, next(self._numbers), r, s) for r, s in zip(requests, sinks, strict=True)]
            self._waiting.extend(made)
            self._room_changed = True
            self._change.notify_all()
        return made

    def _check(self, request: GenerationRequest) -> None:
        ids, context = request.prompt_ids, self.info.context_length
        if not ids:
            raise RequestError("the prompt is empty: a model needs at least one token to continue", "messages")
        if len(ids) >= context:
            raise ContextOverflow(
                f"the prompt has {len(ids)} tokens, the model's context holds {context} with the answer; shorten the prompt"
            )
        if request.max_tokens < 1:
            raise RequestError(f"max_tokens is {request.max_tokens}; an answer has at least one token", "max_tokens")
        if len(ids) + request.max_tokens > context:
            raise ContextOverflow(
                f"the prompt has {len(ids)} tokens and {request.max_tokens} are asked for, the model's context holds {context}; "
                f"ask for at most {context - len(ids)} or shorten the prompt",
                "max_tokens",
            )
        known = self.package.vocab_size or self.info.vocab_size
        for what, tokens in (("prompt", ids), ("prediction", request.prediction)):
            if tokens and (min(tokens) < 0 or max(tokens) >= known):
                raise RequestError(f"{what} token ids go from 0 to {known - 1}", what)
        check_params(request.params, self.info.vocab_size)
        check_stop(request.stop)

    def stats(self) -> dict[str, Any]:
        """Counters and gauges: requests, tokens, rows, passes and seconds by kind, drafts, preemptions, seconds since the last pass."""
        with self._change:
            return {
                **self._totals,
                "steps": self._totals["decode_passes"] + self._totals["chunk_passes"],
                "seconds": dict(self._seconds),
                "num_running": self._num_running(),
                "num_waiting": len(self._waiting) + len(self._preempted),
                "rows_used": sum(b.pool.num_used for b in self.banks),
                "rows": sum(b.pool.num_rows for b in self.banks),
                "rows_by_bank": [b.pool.num_used for b in self.banks],
                "evicted_rows": sum(b.evicted_rows for b in self.banks),
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
            self._change.wait_for(lambda: not (self._waiting or self._preempted or self._num_running()), timeout=max(0.0, drain_s))
            self.state = "closed"
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join()
        else:
            self._end_all()
        if self._trace:
            self._trace.close()
        self.model.close()

    def wake(self) -> None:
        """Makes the engine look at its queue again."""
        with self._change:
            self._change.notify_all()

    def _num_running(self) -> int:
        return sum(len(b.sequences) for b in self.banks)

    # ---- the engine's thread: who runs ----

    def _main(self) -> None:
        try:
            self.model.card.bind_thread()
            while self._gather():
                self._pass()
        except Exception as error:
            self._fail(error)
        finally:
            self._end_all()

    def step(self) -> bool:
        """Runs one pass on the calling thread; False when there is nothing to do. For an engine made with `threaded=False`."""
        self._drop_cancelled()
        with self._change:
            self._admit()
            if not self._num_running():
                return False
        self._pass()
        return True

    def _gather(self) -> bool:
        """Ends what was cancelled, takes in what fits, waits while there is nothing to do. False when the engine is to end."""
        while True:
            self._drop_cancelled()
            with self._change:
                if self.state == "closed":
                    return False
                self._admit()
                if self._num_running():
                    return True
                if any(g.cancelled for g in self._waiting):
                    continue
                self._change.notify_all()  # close() waits for idleness
                self._change.wait()

    def _drop_cancelled(self) -> None:
        with self._change:
            dropped = [g for g in self._waiting if g.cancelled]
            if dropped:
                self._waiting = deque(g for g in self._waiting if not g.cancelled)
            gone = [s for s in self._preempted if s.generation.cancelled]
            self._preempted = [s for s in self._preempted if not s.generation.cancelled]
            for bank in self.banks:
                for sequence in [s for s in bank.sequences if s.generation.cancelled]:
                    bank.leave(sequence)
                    gone.append(sequence)
            self._room_changed |= bool(dropped or gone)
        for generation in dropped:
            self._unserved(generation, "cancelled")
        for sequence in gone:
            sequence.end("cancelled")
            self._account(sequence)

    def _admit(self) -> None:
        """Takes in preempted sequences first, then requests in order, background ones last, while there is room."""
        if not self._room_changed:
            return
        while self._num_running() < self.max_running and (self._preempted or self._waiting):
            if self._preempted:
                sequence = self._preempted[0]
            else:
                generation = next((g for g in self._waiting if not g.request.background), self._waiting[0])
                try:
                    sequence = Sequence(generation, self.text, self.info.vocab_size, self._scratch, drafts=self._drafts)
                except Exception as error:  # no memory, say: that request's trouble, not the others'
                    self._waiting.remove(generation)
                    self._unserved(generation, "error", str(error))
                    continue
            bank = self._place(sequence)
            if bank is None:
                self._room_changed = False  # until somebody leaves or comes: looking again would find the same
                return
            if self._preempted:
                self._preempted.pop(0)
            else:
                self._waiting.remove(sequence.generation)
            before = sequence.cached_tokens
            bank.enter(sequence)
            if sequence.num_generated == 0:
                sequence.cached_tokens = before + sequence.num_cached

    def _place(self, sequence: Sequence) -> Bank | None:
        """The bank where the sequence costs least: what it must compute there, and what its rows add to everybody's passes."""
        best: tuple[float, Bank] | None = None
        for bank in self.banks:
            shared = bank.num_shared(sequence.tokens[:-1], sequence.salt)
            need = min(len(sequence.tokens) - shared + min(HEADROOM, sequence.request.max_tokens), bank.pool.num_rows)
            if not bank.has_room(sequence.tokens[:-1], sequence.salt, need, background=sequence.background):
                continue
            highs = [s.high for s in bank.sequences]
            top = min(bank.pool.num_rows, max(bank.pool.num_used, *highs, 0) + need if bank.pool.num_free >= need else bank.pool.num_rows)
            stay = self.planner.round_seconds([max(h, top) for h in highs] + [top]) - self.planner.round_seconds(highs)
            cost = stay * sequence.request.max_tokens + (len(sequence.tokens) - shared) * self.planner.prompt_seconds(top)
            if best is None or cost < best[0]:
                best = (cost, bank)
        return best[1] if best else None

    # ---- the engine's thread: one pass ----

    def _pass(self) -> None:
        """One pass of the bank that waited longest."""
        started = time.perf_counter()
        bank = min((b for b in self.banks if b.sequences), key=lambda b: b.last_pass)
        bank.sequences.sort(key=lambda s: s.last_pass)
        for sequence in bank.sequences:
            if sequence.leader is not None and not sequence.blocked:
                bank.catch_up(sequence)
            if sequence.num_pending == 1 and self._drafts:
                sequence.guess()
        planned = self.planner.plan(bank.sequences)
        if planned is None:
            raise AssertionError(f"bank {bank.index}: every sequence waits for another")
        seats = self._seat(bank, planned)
        self._passes += 1
        bank.last_pass = self._passes
        if seats is None:
            return  # somebody gave rows back: plan again
        self._seconds["plan"] += time.perf_counter() - started
        self._run(bank, planned, seats)

    def _seat(self, bank: Bank, planned: Pass) -> list[Seat] | None:
        """Finds rows and fills the step. None when rows ran out and a sequence was preempted instead."""
        parts = [(bank.sequences[p.who], p) for p in planned.parts]
        count = sum(p.num_tokens + p.num_drafts for p in planned.parts)
        rows = bank.take(count, background=all(s.background for s, _ in parts))
        if rows is None and any(p.num_drafts for p in planned.parts):
            parts = [(s, p._replace(num_drafts=0)) for s, p in parts]  # guesses are the first to go
            count = sum(p.num_tokens for _, p in parts)
            rows = bank.take(count)
        if rows is None and len(bank.sequences) == 1:
            rows = bank.take(count)
        if rows is None:
            self._preempt(bank)
            return None
        step, seats, at = self._step, [], 0
        step.reset(planned.slot, bank.index)
        for sequence, part in parts:
            taken = rows[at : at + part.num_tokens + part.num_drafts]
            at += len(taken)
            seats.append(self._fill(step, sequence, part, taken))
        return seats

    def _fill(self, step: Step, sequence: Sequence, part: Part, rows: Rows) -> Seat:
        first = sequence.num_cached
        tokens = sequence.tokens[first : first + part.num_tokens].tolist()
        tokens += sequence.draft.tokens[: part.num_drafts]
        wanted = part.num_tokens - 1 if part.num_tokens == sequence.num_pending else -1
        query = step.add_tokens(tokens, first, rows.tolist(), step.add_view_rows(sequence.rows), wanted)
        return Seat(sequence, query, rows, part.num_tokens, part.num_drafts)

    def _preempt(self, bank: Bank) -> None:
        """The youngest sequence gives its place back; it keeps its tokens and goes on later."""
        youngest = max(bank.sequences, key=lambda s: (s.background, s.generation.id))
        with self._change:
            bank.leave(youngest)
            youngest.draft = NO_DRAFT
            self._preempted.append(youngest)
            self._preempted.sort(key=lambda s: s.generation.id)
            self._room_changed = False  # its rows are for those who stay
            self._totals["preemptions"] += 1

    def _run(self, bank: Bank, planned: Pass, seats: list[Seat]) -> None:
        step = self._step
        now = time.monotonic()
        for seat in seats:
            seat.sequence.generation.first_pass = seat.sequence.generation.first_pass or now
        started = time.perf_counter()
        self.model.program.run(step, self._step_timeout_ms)
        seconds = time.perf_counter() - started
        num_heads = step.num_logits
        self.planner.observe(planned.slot, seconds, num_heads)
        self._last_progress = time.monotonic()
        for seat in seats:
            seat.sequence.last_pass = self._passes
            known = seat.sequence.tokens[seat.sequence.num_cached : seat.sequence.num_cached + seat.num_tokens]
            bank.commit(seat.sequence, known, seat.rows[: seat.num_tokens])
        kind = "decode" if self.planner.groups[planned.slot].width == 1 else "chunk"
        self._seconds[kind] += seconds
        self._totals[f"{kind}_passes"] += 1
        if kind == "chunk":
            self._totals["chunk_queries"] += step.num_queries
        num_heads += self._sample(bank, [s for s in seats if not s.sequence.num_pending])
        self._totals["heads"] += num_heads
        self._finish_round(bank)
        if self._trace:
            self._trace.add_pass(started, kind, bank, planned, seats, num_heads)

    def _sample(self, bank: Bank, seats: list[Seat]) -> int:
        """Next tokens in order, checking each sequence's guesses as far as they come true. Returns the number of further heads."""
        further = 0
        active = list(enumerate(seats))
        accepted = [0] * len(seats)
        while active:
            agreed = []
            for slot, (index, seat) in enumerate(active):
                token = seat.sequence.sample(self.model.program.logits(slot))
                if token is None or accepted[index] >= seat.num_drafts or token != seat.sequence.draft.tokens[accepted[index]]:
                    continue
                row = seat.num_tokens + accepted[index]
                bank.commit(seat.sequence, array("i", (token,)), seat.rows[row : row + 1])
                accepted[index] += 1
                agreed.append((index, seat))
            active = agreed
            if active:
                queries = [seat.query + seat.num_tokens - 1 + accepted[index] for index, seat in active]
                self.model.program.more_logits(queries, self._step_timeout_ms)
                further += len(queries)
        for seat, count in zip(seats, accepted, strict=True):
            self._settle(bank, seat, count)
        return further

    def _settle(self, bank: Bank, seat: Seat, accepted: int) -> None:
        """After a sequence's turn: rows of wrong guesses go back, forced tokens are taken, one that ended leaves."""
        sequence = seat.sequence
        if seat.num_drafts > accepted:
            bank.pool.release(seat.rows[seat.num_tokens + accepted :])
        if seat.num_drafts:
            self._totals["drafted_tokens"] += seat.num_drafts
            self._totals["accepted_draft_tokens"] += accepted
        sequence.checked(seat.num_drafts, accepted)
        sequence.served = True
        sequence.force()
        if sequence.finish is not None:
            with self._change:
                bank.leave(sequence)
                self._room_changed = True
            self._account(sequence)

    def _finish_round(self, bank: Bank) -> None:
        running = [s for s in bank.sequences if s.num_pending == 1]
        if all(s.served for s in running):
            for sequence in running:
                sequence.served = False

    # ---- the engine's thread: ends ----

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
        with self._change:
            waiting, running = list(self._waiting), [*self._preempted, *(s for b in self.banks for s in b.sequences)]
            self._waiting.clear()
            self._preempted.clear()
            for bank in self.banks:
                bank.sequences.clear()
            self._change.notify_all()
        for sequence in running:
            sequence.end(reason, error=error)
            self._account(sequence)
        for generation in waiting:
            self._unserved(generation, reason, error)

    def _fail(self, error: Exception) -> None:
        """The card failed in the middle of a pass: nothing more can be computed until it is opened again."""
        card_failed = isinstance(error, RuntimeCallError)
        self.reason = str(error) if card_failed else f"internal error: {error!r}"
        self.state = "failed"
        log.error("the engine stopped: %s", self.reason, exc_info=None if card_failed else error)

    # ---- tests ----

    def check_integrity(self) -> None:
        """Raises where the bookkeeping of any bank contradicts itself. Between passes, on the engine's thread or when idle."""
        for bank in self.banks:
            bank.check_integrity()



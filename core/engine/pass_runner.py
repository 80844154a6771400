"""A planned pass on the card and what comes of it: rows are committed, tokens chosen, drafts verified."""

from __future__ import annotations

import time
from array import array
from pathlib import Path

from ..device.model_loader import Model
from ..device.step import Step
from ..kv_cache.cache_bank import CacheBank
from ..kv_cache.row_pool import Rows
from .counters import Counters
from .pass_costs import PassCosts
from .pass_planner import Part, StepPlan
from .sequence import ScheduledSequence, Sequence
from .trace import Trace


class PassRunner:
    """Runs one model's passes, on the engine's thread. `trace`: write every pass to this file."""

    def __init__(
        self, model: Model, costs: PassCosts, counters: Counters, trace: Path | None, step_timeout_ms: int
    ) -> None:
        self._model, self._costs, self._counters = model, costs, counters
        self._step = Step(costs.max_width)
        self._step_timeout_ms = step_timeout_ms
        self._trace = Trace(trace, model.info) if trace else None

    def move_rows(self, bank: int, old: Rows, new: Rows) -> None:
        """Copies K and V of a bank's rows to other rows, on the card."""
        started = time.perf_counter()
        self._model.program.move_rows(bank, old, new, self._step_timeout_ms)
        self._counters.seconds["move"] += time.perf_counter() - started

    def run(
        self, bank: CacheBank[Sequence], planned: StepPlan, parts: list[tuple[Sequence, Part]], rows: Rows
    ) -> list[ScheduledSequence]:
        """Runs the pass: `parts` of `planned`, whose tokens go into `rows`, in order. Sequences may have ended after it
        (see `finish`); they still have their places."""
        step = self._step
        scheduled = self._fill(step, bank, planned, parts, rows)
        started = time.perf_counter()
        self._model.program.run(step, self._step_timeout_ms)
        seconds = time.perf_counter() - started
        num_heads = step.num_logits
        for s in scheduled:
            at = s.sequence.num_cached
            bank.commit(s.sequence, s.sequence.tokens[at : at + s.num_tokens], s.rows[: s.num_tokens])
        kind = "decode" if self._costs.groups[planned.slot].width == 1 else "chunk"
        self._counters.add_pass(kind, seconds, step.num_queries, len(scheduled))
        further = self._sample(bank, [s for s in scheduled if not s.sequence.num_pending])
        full = seconds + self._costs.saved_seconds(planned.slot, step.num_queries)
        self._costs.observe(planned.slot, full, num_heads, further)
        num_heads += further[0]
        self._counters.totals["heads"] += num_heads
        if self._trace:
            self._trace.add_pass(started, kind, bank, planned, scheduled, num_heads)
        return scheduled

    def _fill(
        self, step: Step, bank: CacheBank[Sequence], planned: StepPlan, parts: list[tuple[Sequence, Part]], rows: Rows
    ) -> list[ScheduledSequence]:
        """Writes the queries of all parts into the step."""
        scheduled, now = [], time.monotonic()
        step.reset(planned.slot, bank.index)
        for sequence, part in parts:
            taken, rows = rows[: part.num_tokens + part.num_drafts], rows[part.num_tokens + part.num_drafts :]
            first = sequence.num_cached
            tokens = sequence.tokens[first : first + part.num_tokens].tolist()
            tokens += sequence.drafts.verify(part.num_drafts)
            wanted = part.num_tokens - 1 if part.num_tokens == sequence.num_pending else -1
            query = step.add_tokens(tokens, first, taken.tolist(), step.add_view_rows(sequence.rows), wanted)
            scheduled.append(ScheduledSequence(sequence, query, taken, part.num_tokens, part.num_drafts))
            sequence.generation.first_pass = sequence.generation.first_pass or now
        return scheduled

    def _sample(self, bank: CacheBank[Sequence], scheduled: list[ScheduledSequence]) -> tuple[int, float]:
        """Next tokens in order, verifying each sequence's draft as far as it comes true. Returns the number of further
        heads and their seconds: one is only run for a token whose predecessor came true."""
        further, seconds = 0, 0.0
        active = list(enumerate(scheduled))
        accepted = [0] * len(scheduled)
        while active:
            agreed = []
            for slot, (index, s) in enumerate(active):
                s.sequence.sample(self._model.program.logits(slot))
                accepted[index] += self._commit_drafts(bank, s, accepted[index])
                if s.sequence.finish is None and not s.sequence.num_pending:
                    agreed.append((index, s))
            active = agreed
            if active:
                queries = [s.query + s.num_tokens - 1 + accepted[index] for index, s in active]
                started = time.perf_counter()
                self._model.program.more_logits(queries, self._step_timeout_ms)
                seconds += time.perf_counter() - started
                further += len(queries)
        for s, count in zip(scheduled, accepted, strict=True):
            self._settle(bank, s, count)
        return further, seconds

    def _commit_drafts(self, bank: CacheBank[Sequence], s: ScheduledSequence, accepted: int) -> int:
        """Commits the draft's tokens, after the first `accepted`, that the answer's latest tokens made true. Returns
        how many."""
        sequence, count = s.sequence, 0
        rest = sequence.drafts.draft.tokens[accepted : s.num_drafts]
        while sequence.finish is None and sequence.num_pending and count < len(rest):
            token = sequence.tokens[sequence.num_cached]
            if token != rest[count]:
                break
            row = s.num_tokens + accepted + count
            bank.commit(sequence, array("i", (token,)), s.rows[row : row + 1])
            count += 1
        return count

    def _settle(self, bank: CacheBank[Sequence], s: ScheduledSequence, accepted: int) -> None:
        """After a sequence's tokens: rows of what did not come true go back."""
        if s.num_drafts > accepted:
            bank.pool.release(s.rows[s.num_tokens + accepted :])
        if s.num_drafts:
            self._counters.totals["drafted_tokens"] += s.num_drafts
            self._counters.totals["accepted_draft_tokens"] += accepted
        s.sequence.drafts.settle()
        s.sequence.served = True

    def close(self) -> None:
        """Ends the trace."""
        if self._trace:
            self._trace.close()

"""A planned pass on the card and what comes of it: rows are committed, tokens chosen, drafts verified."""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..device.model_loader import Model
from ..device.split_program import UnderWay
from ..device.step import Step
from ..errors import LogitsError
from ..kv_cache.cache_bank import CacheBank
from ..kv_cache.row_pool import Rows
from ..kv_cache.state_cache import StateCache
from ..recovery.pass_watch import PassWatch
from .counters import Counters
from .pass_costs import PassCosts
from .pass_planner import Part, StepPlan
from .sequence import ScheduledSequence, Sequence
from .sequence_images import fill_images
from .trace import Trace

log = logging.getLogger(__name__)

FLOOR_SECONDS = 2.5  # no pass is called hanging before
HOST_FLOOR_SECONDS = 30.0  # nor before, where this machine's CPUs are the card (profile none): others may have them
EXPECTED_TIMES = 6  # nor before so many times what it is expected to take
FIRST_SECONDS = 20.0  # the first pass of a group after loading may take so long
GRACE_SECONDS = 1.0  # on top of that for calls that keep no deadline


@dataclass(eq=False, slots=True)
class Flight:
    """A pass between its plan and what follows from it. `rows` are those that it writes; `patience`: seconds that it
    may take. `under_way`: where the model is split over several cards, on which it is."""

    bank: CacheBank[Sequence]
    planned: StepPlan
    step: Step
    scheduled: list[ScheduledSequence]
    rows: Rows
    patience: float
    under_way: UnderWay | None = None


class PassRunner:
    """Runs one model's passes, on the engine's thread. `trace`: write every pass to this file; `watch` looks after each
    call to the card.

    What the card gives is looked at before a token is chosen from it: a pass that gives nonsense is run once more, and
    then LogitsError is raised, as is what failed; what the pass wrote is not to be trusted then, and the sequences'
    tokens are those of the latest good one."""

    def __init__(
        self, model: Model, costs: PassCosts, counters: Counters, trace: Path | None, watch: PassWatch
    ) -> None:
        self._model, self._costs, self._counters, self._watch = model, costs, counters, watch
        self._steps = self._make_steps()
        self._patience_under_way = 0.0  # of all passes that are, together
        self._tried = set(range(len(costs.groups)))  # groups that ran since the model was loaded: all were probed
        self._trace = Trace(trace, model.info) if trace else None

    def _make_steps(self) -> list[Step]:
        """One for each pass that may be under way."""
        return [Step(self._costs.max_width) for _ in range(self._model.max_under_way)]

    def move_rows(self, bank: int, old: Rows, new: Rows) -> None:
        """Copies K and V of a bank's rows to other rows, on the card."""
        started = time.perf_counter()
        seconds = max(self._floor(), EXPECTED_TIMES * self._costs.copy * len(old))
        with self._watch.over("moving rows", seconds + self._patience_under_way + GRACE_SECONDS):
            self._model.program.move_rows(bank, old, new, round(seconds * 1000))
        self._counters.seconds["move"] += time.perf_counter() - started

    def begin(
        self, bank: CacheBank[Sequence], planned: StepPlan, parts: list[tuple[Sequence, Part]], rows: Rows
    ) -> Flight:
        """A pass: `parts` of `planned`, whose tokens go into `rows`, in order. Over several cards it is on its way at
        once, others may be so, too; over one the whole of it is run by `finish`."""
        step = self._steps.pop()
        scheduled = self._fill(step, bank, planned, parts, rows)
        flight = Flight(bank, planned, step, scheduled, rows, self._patience(planned.slot, step.num_logits))
        if (pipeline := self._model.pipeline) is not None:
            flight.under_way = pipeline.begin(step, round(flight.patience * 1000))
            self._patience_under_way += flight.patience
        return flight

    def finish(self, flight: Flight) -> list[ScheduledSequence]:
        """The pass, of those that were begun the oldest, to its end, and what follows from it. Sequences may have ended
        after it (see `finish`); they still have their places."""
        bank, planned, step, scheduled = flight.bank, flight.planned, flight.step, flight.scheduled
        started = time.perf_counter()
        self._run_step(flight)
        seconds = time.perf_counter() - started if flight.under_way is None else flight.under_way.seconds
        num_heads = step.num_logits
        for s in scheduled:
            at = s.sequence.num_cached
            bank.commit(s.sequence, s.sequence.tokens[at : at + s.num_tokens], s.rows[: s.num_tokens])
            if s.states:
                bank.advance(s.sequence, s.states, of_prompt=s.num_tokens > 1)
        kind = "decode" if self._costs.groups[planned.slot].width == 1 else "chunk"
        self._counters.add_pass(kind, seconds, step.num_queries, len(scheduled))
        further = self._sample(bank, planned.slot, [s for s in scheduled if not s.sequence.num_pending])
        full = seconds + self._costs.saved_seconds(planned.slot, step.num_queries)
        full -= self._costs.further_states_seconds(planned.slot, _text_lengths(scheduled))
        self._costs.observe(planned.slot, full, num_heads, further)
        num_heads += further[0]
        self._counters.totals["heads"] += num_heads
        if self._trace:
            self._trace.add_pass(started, kind, bank, planned, scheduled, num_heads)
        if (pipeline := self._model.pipeline) is not None:
            pipeline.release()
            self._patience_under_way -= flight.patience
        self._steps.append(step)
        return scheduled

    def drop(self) -> None:
        """What was begun and not finished is of no interest any more."""
        self._steps = self._make_steps()  # somebody may be reading the others
        self._patience_under_way = 0.0
        if (pipeline := self._model.pipeline) is not None:
            pipeline.forget()

    def forget_groups(self) -> None:
        """The model was loaded anew: first passes may take their time again."""
        self._tried.clear()

    def _run_step(self, flight: Flight) -> None:
        """The step on the card, twice where it gives nonsense."""
        program, pipeline, step, seconds = self._model.program, self._model.pipeline, flight.step, flight.patience
        num_heads = step.num_logits
        with self._watch.over("a pass", seconds + GRACE_SECONDS):
            if flight.under_way is None or pipeline is None:
                program.run(step, round(seconds * 1000))
            else:
                pipeline.finish(flight.under_way)
        bad = program.bad_logits(num_heads)
        if bad:
            self._tell_bad("a pass", len(bad), num_heads)
            with self._watch.over("a pass run again", seconds + FIRST_SECONDS + GRACE_SECONDS):
                program.clear_rows(flight.bank.index, flight.rows)
                program.run(step, round(seconds * 1000))
            bad = program.bad_logits(num_heads)
        self._tried.add(flight.planned.slot)
        self._judge(bad, (s.sequence for s in flight.scheduled if s.num_tokens == s.sequence.num_pending))

    def _patience(self, slot: int, num_heads: int) -> float:
        """Seconds that a pass may take."""
        seconds = max(self._floor(), EXPECTED_TIMES * self._costs.pass_seconds(slot, num_heads))
        return seconds if slot in self._tried else max(seconds, FIRST_SECONDS)

    def _floor(self) -> float:
        return HOST_FLOOR_SECONDS if self._model.info.profile == "none" else FLOOR_SECONDS

    def _more_logits(self, slot: int, queries: list[int], sequences: list[Sequence]) -> None:
        """Further heads of the step, twice where they give nonsense."""
        program, seconds = self._model.program, self._patience(slot, len(queries))
        bad: list[int] = []
        for _ in range(2):
            with self._watch.over("further heads", seconds + GRACE_SECONDS):
                program.more_logits(queries, round(seconds * 1000))
            bad = program.bad_logits(len(queries))
            if not bad:
                break
            self._tell_bad("a head", len(bad), len(queries))
        self._judge(bad, sequences)

    def _tell_bad(self, what: str, num_bad: int, num_heads: int) -> None:
        self._counters.totals["repeated_passes"] += 1
        log.warning(
            "%s gave nonsense (NaN, infinity, or the same for all) in %d of %d results", what, num_bad, num_heads
        )

    def _judge(self, bad: list[int], sequences: Iterable[Sequence]) -> None:
        for slot, sequence in enumerate(sequences):
            sequence.num_bad = sequence.num_bad + 1 if slot in bad else 0
        if bad:
            raise LogitsError("the card gave NaN, infinity or the same for every token, twice in a row")

    def _fill(
        self, step: Step, bank: CacheBank[Sequence], planned: StepPlan, parts: list[tuple[Sequence, Part]], rows: Rows
    ) -> list[ScheduledSequence]:
        """Writes the queries of all parts into the step."""
        scheduled, now, left = [], time.monotonic(), len(parts)
        step.reset(planned.slot, bank.index)
        for sequence, part in parts:
            taken, rows = rows[: part.num_tokens + part.num_drafts], rows[part.num_tokens + part.num_drafts :]
            first = sequence.num_cached
            tokens = sequence.tokens[first : first + part.num_tokens].tolist()
            tokens += sequence.drafts.verify(part.num_drafts)
            wanted = part.num_tokens - 1 if part.num_tokens == sequence.num_pending else -1
            query = step.add_tokens(tokens, first, taken.tolist(), step.add_view_rows(sequence.rows), wanted)
            left -= 1
            states = self._add_states(step, bank.states, sequence, query, part, left) if bank.states else ()
            scheduled.append(ScheduledSequence(sequence, query, taken, part.num_tokens, part.num_drafts, states))
            sequence.generation.first_pass = sequence.generation.first_pass or now
        seen = [(s, s.sequence.images, s.sequence.num_cached) for s in scheduled if s.sequence.images is not None]
        if seen:
            fill_images(step, seen)
        return scheduled

    def _add_states(
        self, step: Step, states: StateCache, sequence: Sequence, query: int, part: Part, left: int
    ) -> tuple[tuple[int, int], ...]:
        """From which state to which the part's tokens go, by way of one more where the text is cut, if there is room
        beside those of the `left` parts to come."""
        first, last = sequence.num_cached, sequence.num_cached + part.num_tokens
        cut = max((cut for cut in sequence.cuts if first < cut < last), default=None)
        source, added = sequence.state_slot, []
        if cut is None or not self._model.modes.padding or not states.make_free(left + 2):
            cut = last
        for end in dict.fromkeys((cut, last)):
            target = states.take()
            step.add_part(query, end - first, source, target)
            added.append((end, target))
            query, first, source = query + end - first, end, target
        return tuple(added)

    def _sample(self, bank: CacheBank[Sequence], slot: int, scheduled: list[ScheduledSequence]) -> tuple[int, float]:
        """Next tokens in order, verifying each sequence's draft as far as it comes true. Returns the number of further
        heads and their seconds: one is only run for a token whose predecessor came true."""
        further, seconds = 0, 0.0
        active = list(enumerate(scheduled))
        accepted = [0] * len(scheduled)
        while active:
            agreed = []
            for at, (index, s) in enumerate(active):
                s.sequence.sample(self._model.program.logits(at))
                accepted[index] += self._commit_drafts(bank, s, accepted[index])
                if s.sequence.finish is None and not s.sequence.num_pending:
                    agreed.append((index, s))
            active = agreed
            if active:
                queries = [s.query + s.num_tokens - 1 + accepted[index] for index, s in active]
                started = time.perf_counter()
                self._more_logits(slot, queries, [s.sequence for _, s in active])
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


def _text_lengths(scheduled: Iterable[ScheduledSequence]) -> Iterator[int]:
    """Tokens of each part of a pass that has a state of its own; nothing where there are no states."""
    for s in scheduled:
        at = s.states[-1][0] - s.num_tokens if s.states else 0
        for end, _ in s.states:
            yield end - at
            at = end

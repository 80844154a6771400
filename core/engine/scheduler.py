"""Who runs next on the card: banks, places, passes. The part of the engine that its thread alone touches."""

from __future__ import annotations

import time
from array import array
from collections import deque
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from ..device.model_loader import Model
from ..device.step import Step
from ..kv_cache.cache_bank import CacheBank, headroom
from ..kv_cache.row_pool import Rows
from ..sampling.sampler import Scratch
from .draft_proposer import NO_DRAFT
from .pass_planner import Part, PassPlanner, StepPlan
from .sequence import Generation, Sequence
from .trace import Trace


class ScheduledSequence(NamedTuple):
    """One sequence's place in the pass being run: its queries from `query` on, their rows, how many are known and how
    many guessed."""

    sequence: Sequence
    query: int
    rows: Rows
    num_tokens: int
    num_drafts: int


class Scheduler:
    """Sequences on one model's banks. `run_pass` does the next pass and returns those that ended in it.

    `totals` and `seconds` only ever grow; other threads may read them.
    """

    def __init__(self, model: Model, *, exact: bool, drafts: bool, trace: Path | None, step_timeout_ms: int) -> None:
        program = model.program
        self.model = model
        self.planner = PassPlanner(
            program.groups,
            model.costs.groups,
            model.costs.head,
            model.costs.copy,
            chunks=model.modes.chunks and not exact,
            max_parts=program.logits_slots,
            drafts=drafts,
        )
        self.banks = [CacheBank(i, program.bank_rows, self.planner, self._move) for i in range(program.num_banks)]
        self.preempted: list[Sequence] = []
        self.room_changed = True  # since a sequence was last refused a place
        self.last_progress = time.monotonic()
        names = (
            "preemptions",
            "drafted_tokens",
            "accepted_draft_tokens",
            "decode_passes",
            "chunk_passes",
            "chunk_queries",
            "heads",
        )
        self.totals = dict.fromkeys(names, 0)
        self.widths: deque[tuple[int, int]] = deque(maxlen=48)  # (queries, sequences) of the latest passes
        self.seconds = {"decode": 0.0, "chunk": 0.0, "plan": 0.0, "move": 0.0}
        self._drafts = self.planner.drafts
        self._step = Step(self.planner.max_width)
        self._scratch = Scratch(model.info.vocab_size)
        self._trace = Trace(trace, model.info) if trace else None
        self._step_timeout_ms = step_timeout_ms
        self._passes = 0
        self._ended: list[Sequence] = []

    @property
    def num_running(self) -> int:
        """Sequences that have a place in a bank."""
        return sum(len(b.sequences) for b in self.banks)

    # ---- places ----

    def make(self, generation: Generation) -> Sequence:
        """A sequence for a request that is about to get its place."""
        return Sequence(generation, self.model.text, self.model.info.vocab_size, self._scratch, drafts=self._drafts)

    def enter(self, sequence: Sequence) -> bool:
        """Gives the sequence its place; False where no bank has room for it. It may have ended with that (see
        `finish`)."""
        bank = self._place(sequence)
        if bank is None:
            self.room_changed = False  # until somebody leaves or comes: looking again would find the same
            return False
        fresh = sequence.generation.first_pass is None  # one that was preempted finds what it computed itself, too
        sequence.begin()
        if sequence.finish is not None:
            return True
        bank.enter(sequence)
        if fresh:
            sequence.cached_tokens = sequence.num_cached
        return True

    def drop_cancelled(self) -> list[Sequence]:
        """Takes cancelled sequences off the card; returns them."""
        gone = [s for s in self.preempted if s.generation.cancelled]
        if gone:
            self.preempted = [s for s in self.preempted if not s.generation.cancelled]
        for bank in self.banks:
            for sequence in [s for s in bank.sequences if s.generation.cancelled]:
                self._leave(bank, sequence)
                gone.append(sequence)
        self.room_changed |= bool(gone)
        return gone

    def _leave(self, bank: CacheBank, sequence: Sequence) -> None:
        """The sequence has ended; what it computed is kept for those who go on from it."""
        bank.leave(sequence)
        self.room_changed = True

    def _move(self, bank: int, old: Rows, new: Rows) -> None:
        started = time.perf_counter()
        self.model.program.move_rows(bank, old, new, self._step_timeout_ms)
        self.seconds["move"] += time.perf_counter() - started

    def drop_all(self) -> list[Sequence]:
        """Forgets everybody; returns them. The banks are not usable afterwards."""
        left = [*self.preempted, *(s for b in self.banks for s in b.sequences)]
        self.preempted.clear()
        for bank in self.banks:
            bank.sequences.clear()
        return left

    def _place(self, sequence: Sequence) -> CacheBank | None:
        """The bank where the sequence costs least: what it must compute there, and what its rows add to everybody's
        passes. Of equal ones that where fewer rows that others might go on from are pushed out."""
        best: tuple[tuple[float, int], CacheBank] | None = None
        tokens, answer = sequence.tokens, sequence.request.max_tokens - sequence.num_generated
        for bank in self.banks:
            cached, common = bank.num_shared(tokens[:-1], sequence.cache_salt)
            shared = max(cached, common)
            need = min(len(tokens) - shared + headroom(sequence), bank.pool.num_rows)
            sizes = bank.sizes()
            promised = bank.num_promised()
            if not bank.has_room(tokens[:-1], sequence.cache_salt, need + promised, low_priority=sequence.low_priority):
                continue
            highs = [min(h, bank.pool.num_rows) for h in accumulate(sizes)]
            more = sorted([*sizes, len(tokens) - common + headroom(sequence)])
            later = [min(h, bank.pool.num_rows) for h in accumulate(more)]
            stay = self.planner.round_seconds(later) - self.planner.round_seconds(highs)
            seconds = stay * answer + self.planner.entry_seconds(shared, len(tokens), highs)
            cost = (seconds, max(0, need + promised - bank.pool.num_free))
            if best is None or cost < best[0]:
                best = (cost, bank)
        return best[1] if best else None

    # ---- one pass ----

    def run_pass(self) -> list[Sequence]:
        """One pass; returns the sequences that ended."""
        self._ended = []
        started, moving = time.perf_counter(), self.seconds["move"]
        bank = self._next_bank()
        bank.sequences.sort(key=lambda s: s.last_pass)
        for sequence in bank.sequences:
            if sequence.prefix_owner is not None and not sequence.blocked:
                bank.catch_up(sequence)
            if self._drafts:
                sequence.guess()
        planned = self.planner.plan(bank.sequences)
        if planned is not None and bank.pack(planned):
            planned = self.planner.plan(bank.sequences)
        if planned is None:
            raise AssertionError(f"bank {bank.index}: every sequence waits for another")
        seats = self._seat(bank, planned)
        self._passes += 1
        bank.last_pass = self._passes
        if seats is None:
            return []  # somebody gave rows back: plan again
        self.seconds["plan"] += time.perf_counter() - started - (self.seconds["move"] - moving)
        self._run(bank, planned, seats)
        return self._ended

    def _next_bank(self) -> CacheBank:
        """The bank that waited longest; but a round that was begun is finished first, where no bank has prompts
        waiting. So all streams get their tokens equally often, however many passes a round of their bank takes."""
        busy = [b for b in self.banks if b.sequences]
        latest = max(busy, key=lambda b: b.last_pass)
        if any(s.served for s in latest.sequences) and not any(s.num_pending > 1 for b in busy for s in b.sequences):
            return latest
        return min(busy, key=lambda b: b.last_pass)

    def _seat(self, bank: CacheBank, planned: StepPlan) -> list[ScheduledSequence] | None:
        """Finds rows and fills the step. None when rows ran out and a sequence was preempted instead."""
        parts = [(bank.sequences[p.who], p) for p in planned.parts]
        count = sum(p.num_tokens + p.num_drafts for p in planned.parts)
        above = parts[0][0].high  # one that goes singly stays where its rows are: low ones are for chunks
        rows = bank.take(count, above=above, low_priority=all(s.low_priority for s, _ in parts))
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

    def _fill(self, step: Step, sequence: Sequence, part: Part, rows: Rows) -> ScheduledSequence:
        first = sequence.num_cached
        tokens = sequence.tokens[first : first + part.num_tokens].tolist()
        tokens += sequence.offer(part.num_drafts)
        wanted = part.num_tokens - 1 if part.num_tokens == sequence.num_pending else -1
        query = step.add_tokens(tokens, first, rows.tolist(), step.add_view_rows(sequence.rows), wanted)
        return ScheduledSequence(sequence, query, rows, part.num_tokens, part.num_drafts)

    def _preempt(self, bank: CacheBank) -> None:
        """The youngest sequence gives its place back; it keeps its tokens and goes on later."""
        youngest = max(bank.sequences, key=lambda s: (s.low_priority, s.generation.id))
        bank.leave(youngest)
        youngest.draft = NO_DRAFT
        self.preempted.append(youngest)
        self.preempted.sort(key=lambda s: s.generation.id)
        self.room_changed = False  # its rows are for those who stay
        self.totals["preemptions"] += 1

    def _run(self, bank: CacheBank, planned: StepPlan, seats: list[ScheduledSequence]) -> None:
        step = self._step
        now = time.monotonic()
        for seat in seats:
            seat.sequence.generation.first_pass = seat.sequence.generation.first_pass or now
        started = time.perf_counter()
        self.model.program.run(step, self._step_timeout_ms)
        seconds = time.perf_counter() - started
        num_heads = step.num_logits
        self.planner.observe(planned.slot, seconds, num_heads)
        self.last_progress = time.monotonic()
        for seat in seats:
            seat.sequence.last_pass = self._passes
            known = seat.sequence.tokens[seat.sequence.num_cached : seat.sequence.num_cached + seat.num_tokens]
            bank.commit(seat.sequence, known, seat.rows[: seat.num_tokens])
        self.widths.append((step.num_queries, len(seats)))
        kind = "decode" if self.planner.groups[planned.slot].width == 1 else "chunk"
        self.seconds[kind] += seconds
        self.totals[f"{kind}_passes"] += 1
        if kind == "chunk":
            self.totals["chunk_queries"] += step.num_queries
        num_heads += self._sample(bank, [s for s in seats if not s.sequence.num_pending])
        self.totals["heads"] += num_heads
        self._finish_round(bank)
        if self._trace:
            self._trace.add_pass(started, kind, bank, planned, seats, num_heads)

    def _sample(self, bank: CacheBank, seats: list[ScheduledSequence]) -> int:
        """Next tokens in order, checking each sequence's guesses as far as they come true. Returns the number of
        further heads."""
        further = 0
        active = list(enumerate(seats))
        accepted = [0] * len(seats)
        while active:
            agreed = []
            for slot, (index, seat) in enumerate(active):
                seat.sequence.sample(self.model.program.logits(slot))
                accepted[index] += self._confirm(bank, seat, accepted[index])
                if seat.sequence.finish is None and not seat.sequence.num_pending:
                    agreed.append((index, seat))
            active = agreed
            if active:
                queries = [seat.query + seat.num_tokens - 1 + accepted[index] for index, seat in active]
                self.model.program.more_logits(queries, self._step_timeout_ms)
                further += len(queries)
        for seat, count in zip(seats, accepted, strict=True):
            self._settle(bank, seat, count)
        return further

    def _confirm(self, bank: CacheBank, seat: ScheduledSequence, accepted: int) -> int:
        """Commits the guesses, after the first `accepted`, that the sequence's latest tokens made true. Returns how
        many."""
        sequence, count = seat.sequence, 0
        guesses = sequence.draft.tokens[accepted : seat.num_drafts]
        while sequence.finish is None and sequence.num_pending and count < len(guesses):
            token = sequence.tokens[sequence.num_cached]
            if token != guesses[count]:
                break
            row = seat.num_tokens + accepted + count
            bank.commit(sequence, array("i", (token,)), seat.rows[row : row + 1])
            count += 1
        return count

    def _settle(self, bank: CacheBank, seat: ScheduledSequence, accepted: int) -> None:
        """After a sequence's turn: rows of wrong guesses go back, one that ended leaves."""
        sequence = seat.sequence
        if seat.num_drafts > accepted:
            bank.pool.release(seat.rows[seat.num_tokens + accepted :])
        if seat.num_drafts:
            self.totals["drafted_tokens"] += seat.num_drafts
            self.totals["accepted_draft_tokens"] += accepted
        sequence.checked(accepted)
        sequence.served = True
        if sequence.finish is not None:
            self._leave(bank, sequence)
            self._ended.append(sequence)

    def _finish_round(self, bank: CacheBank) -> None:
        running = [s for s in bank.sequences if s.num_pending == 1]
        if all(s.served for s in running):
            for sequence in running:
                sequence.served = False

    # ---- ends ----

    def close(self) -> None:
        """Ends the trace."""
        if self._trace:
            self._trace.close()

    def check_integrity(self) -> None:
        """Raises where the bookkeeping of any bank contradicts itself. Between passes."""
        for bank in self.banks:
            bank.check_integrity()

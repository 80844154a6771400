"""Who runs next on the card: the queue, admission, banks, passes, preemption. Owns the state of every request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from ..device.backend import FIRST_STATE_SLOT
from ..device.model_loader import Model
from ..device.vision_encoder import VisionEncoder
from ..errors import LogitsError
from ..kv_cache.cache_bank import CacheBank
from ..kv_cache.row_pool import Rows
from ..kv_cache.state_cache import StateCache
from ..recovery.pass_watch import PassWatch
from ..sampling.sampler import Scratch
from .answer_history import AnswerHistory
from .bank_selection import choose_bank
from .counters import Counters
from .draft_proposer import DraftProposer
from .image_runner import ImageRunner
from .output_processor import OutputProcessor
from .pass_costs import PassCosts
from .pass_planner import Part, PassPlanner, StepPlan
from .pass_runner import Flight, PassRunner
from .row_compactor import RowCompactor
from .sequence import Generation, Sequence, SequenceState
from .sequence_images import keyed_tokens

WAITING, PREFILLING, RUNNING = SequenceState.WAITING, SequenceState.PREFILLING, SequenceState.RUNNING
MAX_BAD = 4  # times in a row that a sequence gets nonsense before it is blamed, not the card
PREEMPTED, FINISHED = SequenceState.PREEMPTED, SequenceState.FINISHED


class Scheduler:
    """Sequences on one model's banks.

    `make_sequence` and `add` may be called from any thread; everything else is for the engine's. `lock` guards the
    states (`num_in`) and the queue, and is never held for longer than it takes to change them."""

    def __init__(
        self,
        model: Model,
        *,
        max_running: int,
        exact: bool,
        drafts: bool,
        draft_history: int,
        trace: Path | None,
        watch: PassWatch,
    ) -> None:
        program = model.program
        self.model = model
        self.max_running = max_running
        self.states: StateCache | None = None  # of recurrent layers, where the model has any
        self.counters = Counters()
        self.costs = PassCosts(
            program.groups,
            model.costs,
            chunks=model.modes.chunks and not exact,
            full_chunks=program.num_states > 0 and not model.modes.padding,
            max_heads=program.logits_slots,
        )
        # a draft that does not come true would be in the states of recurrent layers for good
        self.planner = PassPlanner(self.costs, drafts=drafts and not program.num_states)
        self.history = AnswerHistory(draft_history) if self.planner.drafts and draft_history else None
        self.lock = threading.Lock()
        self.waiting: list[Sequence] = []
        self.preempted: list[Sequence] = []
        self._arrived: list[Sequence] = []  # preempted ones of another engine, for this one's thread to take in
        self._entering: Sequence | None = None  # of those that wait: it is being given a place
        self.on_answer: Callable[[Sequence], None] | None = None  # told of each that ended well
        self._runner = PassRunner(model, self.costs, self.counters, trace, watch)
        self._images = ImageRunner(self.costs.max_width, self.counters, watch, model.info.profile == "none")
        self._flights: list[Flight] = []  # passes that were begun, the oldest first: one of a bank
        self.banks: list[CacheBank[Sequence]] = []
        self._compactors: list[RowCompactor] = []
        self.set_bank_rows(program.num_banks, program.bank_rows)
        if self.states is not None:
            self.max_running = min(max_running, self.states.most_texts)
        self._states: Counter[SequenceState] = Counter()
        self._room_changed = True  # since a sequence was last refused a place
        self._scratch = Scratch(model.info.vocab_size)
        self._passes = 0

    def set_bank_rows(self, num_banks: int, num_rows: int) -> None:
        """Begins with empty banks of so many rows each, which the model must have."""
        reuse, move = self.costs.worth_reusing, self._runner.move_rows
        num_states = self.model.program.num_states
        self.states = StateCache(num_states, FIRST_STATE_SLOT) if num_states else None
        self.banks = [CacheBank(index, num_rows, reuse, move, self.states) for index in range(num_banks)]
        self._compactors = [RowCompactor(bank, self.planner) for bank in self.banks]

    # ---- states ----

    def num_in(self, *states: SequenceState) -> int:
        """Sequences in any of these states."""
        return sum(self._states[state] for state in states)

    @property
    def num_running(self) -> int:
        """Sequences that have a place in a bank."""
        return self._states[PREFILLING] + self._states[RUNNING]

    @property
    def num_unfinished(self) -> int:
        """All sequences that are not at their end."""
        return self._states.total()

    def _enter_state(self, sequence: Sequence, state: SequenceState) -> None:
        """The only place where a sequence's state changes. With FINISHED it is counted, and forgotten."""
        if state is FINISHED:  # counted first: who sees nobody running sees all answers counted
            self.counters.add_answer(sequence)
        with self.lock:
            self._states[sequence.state] -= 1
            if sequence.state is WAITING:
                self.waiting.remove(sequence)
            if state is not FINISHED:
                self._states[state] += 1
            sequence.state = state
        if state is FINISHED and sequence.finish != "error" and sequence.num_generated:
            if not sequence.low_priority:
                sequence.drafts.keep()
            if self.on_answer is not None:
                self.on_answer(sequence)

    # ---- the queue ----

    def make_sequence(self, generation: Generation) -> Sequence:
        """A sequence for a request: indexes its prompt, makes its sampler and rules. Takes milliseconds for long
        ones."""
        vocab_size = self.model.info.vocab_size
        output = OutputProcessor(generation.request, self.model.text, vocab_size, self._scratch)
        request, proposer = generation.request, None
        if self.planner.drafts and request.generates:
            tokens = keyed_tokens(request)
            proposer = DraftProposer(tokens, request.prediction, self.history, request.cache_salt)
        sequence = Sequence(generation, output, proposer, self.model.program.shape.axes)
        if self.states is not None:
            ends = np.flatnonzero(np.isin(request.prompt_ids, list(self.model.text.eos_ids)))
            sequence.cuts = tuple(ends[-1:] + 1)  # behind the last message: what follows may be another one's
        return sequence

    def add(self, sequences: list[Sequence]) -> None:
        """They wait for a place from now on. The caller holds `lock`."""
        self.waiting.extend(sequences)
        self._states[WAITING] += len(sequences)
        self._room_changed = True

    def adopt(self, sequences: list[Sequence]) -> None:
        """Sequences that another engine of the same model released go on here. The caller holds `lock`."""
        for sequence in sequences:
            sequence.output.use_scratch(self._scratch)
            sequence.drafts.use_history(self.history)
            (self.waiting if sequence.state is WAITING else self._arrived).append(sequence)
            self._states[sequence.state] += 1
        self._room_changed = True

    def release(self, wanted: Collection[Sequence], *, begun: bool) -> list[Sequence]:
        """Those of `wanted` that wait leave for another engine: they are nobody's until it adopts them. `begun`:
        preempted ones, too; only on the engine's thread. The caller holds `lock`."""
        leaving = []
        for among in (self.preempted, self.waiting) if begun else (self.waiting,):
            for sequence in [s for s in among if s in wanted and not s.generation.cancelled]:
                if sequence is not self._entering:
                    among.remove(sequence)
                    self._states[sequence.state] -= 1
                    leaving.append(sequence)
        return leaving

    def _take_in(self) -> None:
        if self._arrived:
            with self.lock:
                arrived, self._arrived = self._arrived, []
            self.preempted = sorted([*self.preempted, *arrived], key=lambda s: s.generation.id)

    @property
    def has_place(self) -> bool:
        """Whether one more could run, as far as that does not depend on rows."""
        return self.num_running < self.max_running and not self.num_in(WAITING, PREEMPTED)

    def admit(self) -> None:
        """Gives places to preempted sequences first, then to waiting ones, while there is room."""
        try:
            self._admit()
        finally:
            self._entering = None

    def _admit(self) -> None:
        while self._room_changed and self.num_running < self.max_running:
            sequence = self.preempted[0] if self.preempted else self._next_waiting()
            if sequence is None:
                return
            try:
                entered = self._enter(sequence)
            except Exception as error:  # no memory, say: that request's trouble, not the others'
                if sequence.state is PREEMPTED:
                    self.preempted.remove(sequence)
                sequence.fail(error)
                entered = self._room_changed = True
            if not entered:
                return
            if sequence.finish is not None:  # what had to come was the whole answer
                self._enter_state(sequence, FINISHED)

    def _next_waiting(self) -> Sequence | None:
        """Of the client that has fewest places, and of its requests one that has fewest; among equals the one that came
        first, low-priority ones last."""
        placed = [s.generation for b in self.banks for s in b.sequences]
        places, batches = Counter(g.request.client for g in placed), Counter(g.batch for g in placed)

        def turn(sequence: Sequence) -> tuple[bool, int, int]:
            generation = sequence.generation
            return sequence.low_priority, places[generation.request.client], batches[generation.batch]

        with self.lock:
            self._entering = min(self.waiting, key=turn, default=None)
        return self._entering

    def _enter(self, sequence: Sequence) -> bool:
        """Gives the sequence its place; False where no bank has room for it. It may have ended with that (see
        `finish`)."""
        self._room_changed = False  # until somebody leaves or comes: looking again would find the same
        bank = choose_bank(self.banks, sequence, self.costs, self.model.num_blocks)
        if bank is None:
            return False
        self._room_changed = True
        if sequence.state is WAITING:
            sequence.begin()
            if sequence.finish is not None:
                return True
        bank.enter(sequence)
        if sequence.state is PREEMPTED:
            self.preempted.remove(sequence)
        else:  # one that was preempted finds what it computed itself, too
            sequence.cached_tokens = sequence.num_cached
        self._enter_state(sequence, RUNNING if sequence.generation.first_token is not None else PREFILLING)
        return True

    def drop_cancelled(self) -> None:
        """Ends sequences whose clients are gone."""
        self._take_in()
        with self.lock:
            cancelled = [s for s in self.waiting if s.generation.cancelled]
        cancelled += [s for s in self.preempted if s.generation.cancelled]
        cancelled += [s for b in self.banks if not self._in_flight(b) for s in b.sequences if s.generation.cancelled]
        for sequence in cancelled:
            if sequence.bank is not None:
                self.banks[sequence.bank].leave(sequence)
            elif sequence.state is PREEMPTED:
                self.preempted.remove(sequence)
            self._end(sequence, lambda s: s.end("cancelled"))

    def _end(self, sequence: Sequence, tell: Callable[[Sequence], None]) -> None:
        self._room_changed = True
        tell(sequence)
        self._enter_state(sequence, FINISHED)

    # ---- one pass ----

    def run_pass(self) -> None:
        """One pass, of which sequences may end, or one run of the vision encoder. Where the model is split over several
        cards, passes of other banks are begun before it is waited for, until each card has one, and one more."""
        if self.model.program.encoder is not None and self._run_encoder(self.model.program.encoder):
            return
        while len(self._flights) < self.model.max_under_way and self._begin_pass():
            pass
        if self._flights:
            self._finish_pass()

    def _run_encoder(self, encoder: VisionEncoder) -> bool:
        """One picture, if somebody waits for it and nobody else comes first; whether there was one."""
        banks = [b for b in self.banks if not self._in_flight(b)]
        waiting = []
        for bank in banks:
            if any(s.images is not None for s in bank.sequences):
                self._catch_up(bank)
                self._bring_within_reach(bank)  # before anybody looks: who waited for one that is sent away goes on
                waiting += self._images.look(bank.sequences)
        if not waiting or (self._images.others_first and (self._flights or self._next_bank() is not None)):
            return False
        self._images.run(encoder, min(waiting, key=lambda s: s.order))
        return True

    def _bring_within_reach(self, bank: CacheBank[Sequence]) -> None:
        """Prompts that must go in chunks, and whose rows lie too high: they come down, or the youngest of the bank
        gives its place to the others."""
        for sequence in [s for s in bank.sequences if s.needs_chunk]:
            while sequence.bank is not None and sequence.high > self.costs.reach:
                if not self._compactors[bank.index].bring_within_reach(sequence):
                    self._preempt(bank)

    def finish_passes(self) -> None:
        """To the end of all that were begun; errors as for a pass."""
        while self._flights:
            self._finish_pass()

    def _begin_pass(self) -> bool:
        """False: no bank has one, or one that has could not."""
        started, moving = time.perf_counter(), self.counters.seconds["move"]
        bank = self._next_bank()
        if bank is None:
            return False
        planned = self._plan(bank)
        self._passes += 1
        bank.last_pass = self._passes
        places = self._take_rows(bank, planned)
        if places is None:
            self._preempt(bank)  # then plan again
            return False
        self.counters.seconds["plan"] += time.perf_counter() - started - (self.counters.seconds["move"] - moving)
        self._flights.append(self._runner.begin(bank, planned, *places))
        return True

    def _finish_pass(self) -> None:
        """The oldest."""
        bank = self._flights[0].bank
        scheduled = self._runner.finish(self._flights[0])
        del self._flights[0]
        for s in scheduled:
            self._after_pass(bank, s.sequence)
        self._finish_round(bank)

    def _drop_passes(self) -> None:
        """What was begun and not finished is of no interest any more."""
        self._flights.clear()
        self._runner.drop()

    def _in_flight(self, bank: CacheBank[Sequence]) -> bool:
        """Whether a pass of the bank was begun: who is in it stays, and rows stay where they are."""
        return any(flight.bank is bank for flight in self._flights)

    def _next_bank(self) -> CacheBank[Sequence] | None:
        """The bank that waited longest; but a round that was begun is finished first, where no bank has prompts
        waiting. So all streams get their tokens equally often, however many passes a round of their bank takes. None:
        all have one under way."""
        busy = [b for b in self.banks if b.sequences and not self._in_flight(b)]
        if self.model.program.encoder is not None:  # in some all may wait for pictures
            busy = [b for b in busy if any(not s.blocked for s in b.sequences)]
        if not busy:
            return None
        latest = max(busy, key=lambda b: b.last_pass)
        if any(s.served for s in latest.sequences) and not any(s.num_pending > 1 for b in busy for s in b.sequences):
            return latest
        return min(busy, key=lambda b: b.last_pass)

    def _plan(self, bank: CacheBank[Sequence]) -> StepPlan:
        bank.sequences.sort(key=lambda s: s.last_pass)
        self._catch_up(bank)
        for sequence in bank.sequences:
            sequence.propose_draft()
        planned = self.planner.plan(bank.sequences)
        if planned is not None and self._compactors[bank.index].pack(planned):
            planned = self.planner.plan(bank.sequences)
        if planned is None:
            raise AssertionError(f"bank {bank.index}: every sequence waits for another")
        return planned

    def _catch_up(self, bank: CacheBank[Sequence]) -> None:
        for sequence in bank.sequences:
            if sequence.prefix_owner is not None and not sequence.blocked:
                bank.catch_up(sequence)

    def _take_rows(
        self, bank: CacheBank[Sequence], planned: StepPlan
    ) -> tuple[list[tuple[Sequence, Part]], Rows] | None:
        """Rows for the pass, and what of it they are for. None where there are too few even without drafts."""
        parts = [(bank.sequences[p.candidate], p) for p in planned.parts]
        count = sum(p.num_tokens + p.num_drafts for p in planned.parts)
        if self.states is not None and not self.states.make_free(len(parts)):
            raise AssertionError("more sequences run than there are states for")
        # one that goes singly stays where its rows are, as far as its group reaches: low ones are for chunks
        above, below = parts[0][0].high, self.costs.groups[planned.slot].history
        rows = bank.take(count, above=above, below=below, low_priority=all(s.low_priority for s, _ in parts))
        if rows is None and any(p.num_drafts for p in planned.parts):
            parts = [(s, p._replace(num_drafts=0)) for s, p in parts]  # drafts are the first to go
            count = sum(p.num_tokens for _, p in parts)
            rows = bank.take(count)
        if rows is None and len(bank.sequences) == 1:
            rows = bank.take(count)
        return None if rows is None else (parts, rows)

    def _preempt(self, bank: CacheBank[Sequence]) -> None:
        """The youngest sequence gives its place back; it keeps its tokens and goes on later."""
        youngest = max(bank.sequences, key=lambda s: (s.low_priority, s.generation.id))
        bank.leave(youngest)
        youngest.drafts.clear()
        self.preempted.append(youngest)
        self.preempted.sort(key=lambda s: s.generation.id)
        self._enter_state(youngest, PREEMPTED)
        self._room_changed = False  # its rows are for those who stay
        self.counters.totals["preemptions"] += 1

    def drop_bank(self) -> bool:
        """Gives the last bank's memory back to the card; False where there is no other. Who lives there goes on later,
        elsewhere; what was cached there is gone."""
        if len(self.banks) == 1 or self._in_flight(self.banks[-1]):
            return False
        while self.banks[-1].sequences:
            self._preempt(self.banks[-1])
        self._room_changed = True
        self._compactors.pop()
        self.banks.pop()
        self.model.drop_bank()
        return True

    def suspend(self) -> None:
        """What the card held is lost, after whatever part of a pass: everybody who had a place goes on later, from the
        same token. But who had nonsense for an answer again and again, while the card passed its tests, ends."""
        self._drop_passes()
        placed = [s for bank in self.banks for s in bank.sequences]
        for bank in self.banks:
            bank.sequences.clear()
        for sequence in placed:
            sequence.lose_place()
            if sequence.finish is None and sequence.num_bad >= MAX_BAD:
                sequence.fail(LogitsError("the model gives NaN, infinity or the same for every token for this prompt"))
            if sequence.finish is not None:  # in the part of the pass that went well, say
                self._enter_state(sequence, FINISHED)
            else:
                self.preempted.append(sequence)
                self._enter_state(sequence, PREEMPTED)
        self.preempted.sort(key=lambda s: s.generation.id)
        before = self.banks
        self.set_bank_rows(len(before), before[0].pool.num_rows)
        for old, new in zip(before, self.banks, strict=True):  # counters go on
            new.evicted_rows, new.moved_rows = old.evicted_rows, old.moved_rows
        self._runner.forget_groups()
        self._room_changed = True

    def _after_pass(self, bank: CacheBank[Sequence], sequence: Sequence) -> None:
        sequence.last_pass = bank.last_pass
        if sequence.finish is not None:
            bank.leave(sequence)  # what it computed is kept for those who go on from it
            self._room_changed = True
            self._enter_state(sequence, FINISHED)
        elif sequence.state is PREFILLING and sequence.generation.first_token is not None:
            self._enter_state(sequence, RUNNING)

    def _finish_round(self, bank: CacheBank[Sequence]) -> None:
        running = [s for s in bank.sequences if s.num_pending == 1]
        if all(s.served for s in running):
            for sequence in running:
                sequence.served = False

    # ---- ends ----

    def end_all(self, tell: Callable[[Sequence], None]) -> None:
        """Ends everybody: `tell` says how to each, once. The banks are not usable afterwards."""
        self._drop_passes()
        self._take_in()
        with self.lock:
            left = [*self.preempted, *(s for b in self.banks for s in b.sequences), *self.waiting]
        self.preempted.clear()
        for bank in self.banks:
            bank.sequences.clear()
        for sequence in left:
            self._end(sequence, tell if sequence.finish is None else lambda _: None)  # told in a pass that failed

    def close(self) -> None:
        """Ends the trace."""
        self._runner.close()

    def check_integrity(self) -> None:
        """Raises where the bookkeeping contradicts itself. Between passes."""
        for bank in self.banks:
            bank.check_integrity(sum(len(flight.rows) for flight in self._flights if flight.bank is bank))
        placed = [s for b in self.banks for s in b.sequences]
        if any(s.state not in (PREFILLING, RUNNING) for s in placed) or len(placed) != self.num_running:
            raise AssertionError(f"{len(placed)} sequences have places, {self.num_running} are said to run")
        if self.states is not None:
            passing = [slot for flight in self._flights for s in flight.scheduled for _, slot in s.states]
            self.states.check_integrity([*(s.state_slot for s in placed), *passing])
        if any(s.state is not PREEMPTED for s in self.preempted) or len(self.preempted) != self._states[PREEMPTED]:
            raise AssertionError("the preempted sequences are not those in that state")

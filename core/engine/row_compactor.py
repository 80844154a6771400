"""Rows change places where passes cost more than copies.

The card reads a group's whole history whatever the mask shows, so low rows are for those who run. What a bank's passes
cost more than they would with everybody packed is added up, and copies are made as far as they cost no more than that:
all in all, moving rows never costs more than leaving them has."""

from __future__ import annotations

import math

from ..kv_cache.cache_bank import CacheBank
from ..kv_cache.row_placement import clear_below, packed_highs
from .pass_planner import PassPlanner, StepPlan
from .sequence import Sequence

PAUSE = 0.2  # of the deepest pass: how long those who run may wait for rows to be moved
LOOK_EVERY = 16  # passes of a bank between two closer looks at where its rows lie


class RowCompactor:
    """Packs the rows of one bank."""

    def __init__(self, bank: CacheBank[Sequence], planner: PassPlanner) -> None:
        self._bank, self._planner, self._costs = bank, planner, planner.costs
        self._num_live = 0  # rows that somebody uses at present; too many where several computed the same
        self._committed = 0  # the bank's committed_rows when they were counted
        self._overspent = 0.0  # seconds that passes took longer than with everybody packed, less what packing took
        self._looked = -1  # passes since somebody came or went
        self._changes = 0  # the bank's changes then

    def pack(self, planned: StepPlan) -> bool:
        """Before a pass: brings rows below others' where that makes it cheaper. Whether any was moved: then plan
        again."""
        bank, planner = self._bank, self._planner
        if not bank.can_move or not self._may_gain():
            return False
        seqs = sorted(bank.sequences, key=self._turn)
        highs, live = packed_highs([s.rows for s in seqs], bank.pool.num_rows)
        self._num_live, self._committed = int(live.sum()), bank.committed_rows
        high = {id(s): h for s, h in zip(seqs, highs, strict=True)}
        if planned != planner.plan(bank.sequences, in_turn=False):
            return False  # the turn of somebody whom a chunk left out: where rows lie makes no difference to it
        better = planner.plan(bank.sequences, [high[id(s)] for s in bank.sequences], in_turn=False)
        assert better is not None
        now, then = (planner.seconds_per_token(bank.sequences, p) for p in (planned, better))
        if then >= now:
            return False
        self._overspent += (now - then) * sum(p.num_tokens for p in planned.parts)
        carried = {id(bank.sequences[p.candidate]) for p in better.parts}
        while id(seqs[-1]) not in carried:
            seqs.pop()
        waiting = any(s.num_pending == 1 for s in bank.sequences)
        most = min(self._overspent, PAUSE * max(self._costs.seconds)) if waiting else self._overspent
        return self._bring_down(seqs, self._costs.groups[better.slot].history, most)

    def bring_within_reach(self, sequence: Sequence) -> bool:
        """Moves a sequence's rows to where chunks reach them, whatever that costs; False where others' are in the way.
        One that is alone always gets there, what nobody uses is not kept for others then."""
        bank, spent = self._bank, self._overspent
        self._bring_down([sequence], self._costs.reach, math.inf)
        if sequence.high > self._costs.reach and bank.sequences == [sequence]:
            bank.make_free(bank.pool.num_rows - len(sequence.rows), low_priority=False)
            self._bring_down([sequence], self._costs.reach, math.inf)
        self._overspent = spent
        return sequence.high <= self._costs.reach

    def _turn(self, sequence: Sequence) -> tuple[bool, bool, tuple[bool, int]]:
        """Whose rows should lie lowest: prompts, in their order, then those who have few."""
        size = len(sequence.rows)
        goes_singly = sequence.num_pending == 1 or self._costs.chunk_slot(size) is None
        return sequence.blocked, goes_singly, (False, size) if goes_singly else sequence.order

    def _may_gain(self) -> bool:
        """Whether packing could make a pass cheaper, as far as can be seen at a glance; a closer look now and then."""
        bank, costs = self._bank, self._costs
        self._looked = 0 if self._changes != bank.changes else self._looked + 1
        self._changes = bank.changes
        low = self._num_live + bank.committed_rows - self._committed
        high = max(s.high for s in bank.sequences)
        same_chunk = costs.chunk_slot(high) == costs.chunk_slot(low) is not None
        tight = same_chunk and costs.decode_slot(high) == costs.decode_slot(low)
        return not tight or self._looked % LOOK_EVERY == 0

    def _bring_down(self, sequences: list[Sequence], limit: int, seconds: float) -> bool:
        """Moves these sequences' rows below `limit`, or the highest of them, as far as that takes no more than so many
        seconds."""
        bank, costs = self._bank, self._costs
        copies, moved = seconds / max(costs.copy, 1e-9), False
        while True:
            highs, wanted = packed_highs([s.rows for s in sequences], bank.pool.num_rows)
            most, room = int(wanted[limit:].sum()), min(limit - highs[-1], costs.max_width)
            if not most:
                self._overspent = 0.0
            if not most or copies < 2:
                return moved
            bank.make_free(most + room, low_priority=all(s.low_priority for s in bank.sequences))
            moves = clear_below(limit, wanted, bank.pool.held, room, most)
            while (cost := sum(m.copies for m in moves)) > copies:
                most, room = (most, 0) if room else (most // 2, 0)
                moves = clear_below(limit, wanted, bank.pool.held, room, most)
            if not moves[1].old.size:
                return moved
            bank.relocate(moves)
            copies, moved = copies - cost, True
            self._overspent -= cost * costs.copy

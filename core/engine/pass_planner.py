"""Decides the next pass of a bank. Pure: it sees numbers of sequences and measured costs, never the card.

The rules, all of them:

1. A waiting prompt goes on with the very next pass. Running sequences ride along with their next token, as far as that
   costs less than passes of their own: nobody pauses longer than one chunk pass and its heads. Those left out have such
   passes in between, for no more time than the prompt's. Prompts fill what is left of a chunk, older ones first,
   background ones last.
2. Without prompts, sequences go in rounds: each gets its next token once a round. A round is split into one chunk,
   which carries those with the lowest rows, and single decodes for the rest, so that the time per token is least.
3. Guessed tokens (drafts) ride along in a chunk as far as they are likely to come true; they can also make a chunk
   worth it for one sequence alone. A chunk that is only worth it for its drafts must promise a gain, for a guess may
   fail.
4. A pass uses the smallest decode group, or the cheapest chunk, that reaches the highest row anybody in it sees. A
   prompt that no chunk reaches goes token by token, in every other pass; of several the oldest and the one with the
   fewest tokens left take turns.
5. Pictures on three axes go in chunks only, whatever that costs; a prompt with such whose rows lie higher than any
   chunk reaches has no pass until they were moved (see Scheduler).
6. A prompt that begins like an older one which is being computed waits for the common part instead of computing it
   twice (`blocked`).
7. Where a chunk that is not full would spoil the states of recurrent layers (`full_chunks`) a prompt fills whole ones
   by itself, and the rest of it goes token by token, as in rule 4; nobody rides along, and rounds go one by one.

Candidates come in the order of their last passes, longest ago first. Where their rows lie is not decided here, but what
a pass costs depends on it: see `highs` of `plan`, and row_placement.py."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .pass_costs import PassCosts

GAIN_FOR_DRAFTS = 0.95  # a chunk chosen for its guesses alone must cost at most this share of the time without


class Candidate(Protocol):
    """What the planner may know of a sequence."""

    @property
    def num_pending(self) -> int:
        """Tokens known but not yet cached: more than 1 is a prompt (or forced text), 1 the next token."""

    @property
    def num_cached(self) -> int:
        """Tokens that are cached: so many rows it sees."""

    @property
    def high(self) -> int:
        """1 + the highest row it sees."""

    @property
    def served(self) -> bool:
        """Whether it had its token in this round."""

    @property
    def blocked(self) -> bool:
        """Whether it waits for an older prompt's common part."""

    @property
    def needs_chunk(self) -> bool:
        """Whether it has pending tokens that must not go singly: decode cannot place pictures on three axes."""

    @property
    def order(self) -> tuple[bool, int]:
        """Whose prompt goes first: lower, background ones last."""

    @property
    def num_drafts(self) -> int:
        """Guessed tokens it offers."""

    @property
    def chance(self) -> float:
        """How likely each of them comes true, given those before it."""


class Part(NamedTuple):
    """A candidate's share of a pass (its index): `num_tokens` of its pending ones, then `num_drafts` guesses."""

    candidate: int
    num_tokens: int
    num_drafts: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Run group `slot` (index in the program's list) with these parts."""

    slot: int
    parts: tuple[Part, ...]


class PassPlanner:
    """Plans for one model, whose passes cost what `costs` says. Not `drafts`: nobody's guesses are looked at."""

    def __init__(self, costs: PassCosts, *, drafts: bool = True) -> None:
        self.costs = costs
        self.drafts = drafts and costs.reach >= 0  # only chunks carry guesses

    def seconds_per_token(self, candidates: Items[Candidate], planned: StepPlan) -> float:
        """Seconds of a pass for each token it is expected to bring forward."""
        tokens = heads = 0.0
        for part in planned.parts:
            gained = self._expected(candidates[part.candidate]) if part.num_drafts else 0.0
            tokens += part.num_tokens + gained
            if part.num_tokens == candidates[part.candidate].num_pending:
                heads += 1 + gained
        num_tokens = sum(part.num_tokens + part.num_drafts for part in planned.parts)
        return self.costs.pass_seconds(planned.slot, heads, num_tokens) / tokens

    def plan(
        self, candidates: Items[Candidate], highs: Items[int] | None = None, *, in_turn: bool = True
    ) -> StepPlan | None:
        """The next pass; None where nothing can run (all blocked).

        `highs` instead of the candidates' own: what if their rows lay there? Not `in_turn`: the pass in which prompts
        go on, or else the next of a round, whoever is left out by it."""
        if highs is None:
            highs = [c.high for c in candidates]
        reach, fewest = self.costs.reach, self.costs.max_width if self.costs.full_chunks else 0
        prompts: list[int] = []
        far: list[int] = []
        running: list[int] = []
        for i, c in enumerate(candidates):
            if not c.blocked:
                fits = c.num_cached <= reach and c.num_pending >= fewest
                (running if c.num_pending == 1 else prompts if fits else far).append(i)
        prompts = [i for i in prompts if highs[i] <= reach or not candidates[i].needs_chunk]
        prompts.sort(key=lambda i: candidates[i].order)
        if prompts and highs[prompts[0]] <= reach:
            chunk = self._with_prompts(candidates, highs, prompts, running)
            if chunk is not None:
                others = sorted(running + self._token_by_token(candidates, far)) if in_turn else []
                turn = self._left_out(highs, chunk, prompts[0], others)
                return chunk if turn is None else self._single(highs, turn)
            running = sorted(prompts + running)  # no chunk helps: prompts take part in rounds
        elif prompts:
            far = sorted(far + prompts[:1]) if in_turn else prompts[:1]  # its rows lie too high
            running = running if in_turn else []
        if far and not (running and (not in_turn or max(far) > running[-1])):
            return self._single(highs, min(self._token_by_token(candidates, far)))
        if not running:
            return None
        waiting = [i for i in running if not candidates[i].served] or running
        return self._round(candidates, highs, waiting)

    def _single(self, highs: Items[int], candidate: int) -> StepPlan:
        return StepPlan(self.costs.decode_slot(highs[candidate]), (Part(candidate, 1),))

    def _token_by_token(self, candidates: Items[Candidate], far: list[int]) -> list[int]:
        """Rule 4: whose turn it may be among the prompts that no chunk reaches."""
        if not far:
            return []
        low_priority = min(candidates[i].order[0] for i in far)
        far = [i for i in far if candidates[i].order[0] == low_priority]
        return [min(far, key=lambda i: candidates[i].order), min(far, key=lambda i: candidates[i].num_pending)]

    def _with_prompts(
        self, candidates: Items[Candidate], highs: Items[int], prompts: list[int], running: list[int]
    ) -> StepPlan | None:
        """Rule 1, the chunk. None where single decodes cost less."""
        costs, placed = self.costs, any(candidates[i].needs_chunk for i in prompts)
        if costs.full_chunks:
            return self._full(highs, prompts[0])
        prompts = self._that_fit(candidates, [i for i in prompts if highs[i] <= costs.reach])
        slot, riders = self._riders(highs, max(highs[i] for i in prompts), running)
        parts, room = [Part(i, 1) for i in riders], costs.groups[slot].width - len(riders)
        for i in prompts[: costs.max_heads - len(riders)]:
            num_tokens = min(room, candidates[i].num_pending)
            if num_tokens:
                parts.append(Part(i, num_tokens))
            room -= num_tokens
        singly = sum(part.num_tokens * costs.seconds[costs.decode_slot(highs[part.candidate])] for part in parts)
        cheaper = singly < costs.layers_seconds(slot, sum(part.num_tokens for part in parts))
        if cheaper and not placed:
            return None
        return StepPlan(slot, tuple(self._with_drafts(candidates, parts, room)))

    def _full(self, highs: Items[int], prompt: int) -> StepPlan | None:
        """Rule 7: a chunk of one prompt alone."""
        slot = self.costs.chunk_slot(highs[prompt])
        assert slot is not None
        width = self.costs.groups[slot].width
        if width * self.costs.seconds[self.costs.decode_slot(highs[prompt])] < self.costs.seconds[slot]:
            return None
        return StepPlan(slot, (Part(prompt, width),))

    def _that_fit(self, candidates: Items[Candidate], prompts: list[int]) -> list[int]:
        """The first of these prompts that fill a chunk."""
        total = 0
        for count, i in enumerate(prompts, 1):
            total += candidates[i].num_pending
            if total >= self.costs.max_width:
                return prompts[:count]
        return prompts

    def _riders(self, highs: Items[int], floor: int, running: list[int]) -> tuple[int, list[int]]:
        """The group of a chunk over at least `floor` rows, and those who ride along because passes of their own would
        cost more."""
        costs, slot = self.costs, self.costs.chunk_slot(floor)
        assert slot is not None
        ordered = sorted(running, key=highs.__getitem__)
        rest = sum(costs.single_seconds(highs[i]) for i in ordered)
        best, best_slot, num_riders = costs.seconds[slot] + rest, slot, 0
        for count, i in enumerate(ordered[: costs.max_heads - 1], 1):
            rest -= costs.single_seconds(highs[i])
            slot = costs.chunk_slot(max(floor, highs[i]))
            if slot is None:
                break
            if (seconds := costs.pass_seconds(slot, count) + rest) < best:
                best, best_slot, num_riders = seconds, slot, count
        return best_slot, ordered[:num_riders]

    def _left_out(self, highs: Items[int], chunk: StepPlan, prompt: int, waiting: list[int]) -> int | None:
        """Who is to have a pass before the next chunk of the oldest prompt: rule 1."""
        carried = {part.candidate for part in chunk.parts}
        left_out = [i for i in waiting if i not in carried]
        seconds = sum(self.costs.single_seconds(highs[i]) for i in left_out if i > prompt)  # since its last pass
        first = next((i for i in left_out if i < prompt), None)
        if first is None or seconds + self.costs.single_seconds(highs[first]) > self.costs.seconds[chunk.slot]:
            return None
        return first

    def _round(self, candidates: Items[Candidate], highs: Items[int], waiting: list[int]) -> StepPlan:
        """Rules 2 and 3: how much of this round one chunk should carry."""
        costs = self.costs
        if costs.full_chunks:
            return self._single(highs, waiting[0])
        ordered = sorted((highs[i], i) for i in waiting)
        singles = [costs.single_seconds(high) for high, _ in ordered]
        rest = sum(singles)
        best_rate, num_carried = rest / len(ordered), 0
        tokens, heads, num_tokens = float(len(ordered)), 0.0, 0
        for count, (high, i) in enumerate(ordered, 1):
            slot = costs.chunk_slot(high)
            if slot is None or count > min(costs.max_heads, costs.groups[slot].width):
                break
            gained = self._expected(candidates[i])
            tokens += gained
            heads += 1 + gained
            num_tokens += 1 + (candidates[i].num_drafts if self.drafts else 0)
            rest -= singles[count - 1]
            rate = (costs.pass_seconds(slot, heads, min(num_tokens, costs.groups[slot].width)) + rest) / tokens
            if rate < (best_rate if count > 1 else GAIN_FOR_DRAFTS * best_rate):
                best_rate, num_carried = rate, count
        if not num_carried:
            return self._single(highs, waiting[0])
        slot = costs.chunk_slot(ordered[num_carried - 1][0])
        assert slot is not None
        parts = [Part(i, 1) for _, i in ordered[:num_carried]]
        room = costs.groups[slot].width - num_carried
        return StepPlan(slot, tuple(self._with_drafts(candidates, parts, room)))

    def _expected(self, candidate: Candidate) -> float:
        """How many of its guesses will come true."""
        if not self.drafts or not candidate.num_drafts:
            return 0.0
        p = min(candidate.chance, 0.999)
        return p * (1 - p**candidate.num_drafts) / (1 - p)

    def _with_drafts(self, candidates: Items[Candidate], parts: list[Part], room: int) -> list[Part]:
        """Adds guesses to the parts that end with a next token, while there is room."""
        if not self.drafts:
            return parts
        with_drafts = []
        for part in parts:
            candidate = candidates[part.candidate]
            if candidate.num_drafts and room and part.num_tokens == candidate.num_pending:
                part = part._replace(num_drafts=min(room, candidate.num_drafts))
                room -= part.num_drafts
            with_drafts.append(part)
        return with_drafts

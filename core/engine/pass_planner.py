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
4. A pass uses the cheapest group that reaches the highest row anybody in it sees. A prompt that no chunk reaches goes
   token by token, in every other pass; of several the oldest and the one with the fewest tokens left take turns.
5. A prompt that begins like an older one which is being computed waits for the common part instead of computing it
   twice (`blocked`).

Candidates come in the order of their last passes, longest ago first. Where their rows lie is not decided here, but what
a pass costs depends on it: see `highs` of `plan`, and layout.py."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..device.shape_groups import Group

GAIN_FOR_DRAFTS = 0.95  # a chunk chosen for its guesses alone must cost at most this share of the time without
SMOOTHING = 0.05  # weight of a new measurement in a running average


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
    def order(self) -> tuple[bool, int]:
        """Whose prompt goes first: lower, background ones last."""

    @property
    def num_drafts(self) -> int:
        """Guessed tokens it offers."""

    @property
    def chance(self) -> float:
        """How likely each of them comes true, given those before it."""


class Part(NamedTuple):
    """The share of candidate `who` in a pass: `num_tokens` of its pending ones, then `num_drafts` guesses."""

    who: int
    num_tokens: int
    num_drafts: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Run group `slot` (index in the program's list) with these parts."""

    slot: int
    parts: tuple[Part, ...]


class PassPlanner:
    """Plans for one model. `groups` are decode groups by growing cache, then chunks by growing history; `costs` are
    seconds of a whole pass without heads, same order; `head` seconds of one head, `copy` of moving one row in all
    layers. `max_parts` sequences fit one pass."""

    def __init__(
        self,
        groups: tuple[Group, ...],
        costs: tuple[float, ...],
        head: float,
        copy: float = 0.0,
        *,
        chunks: bool = True,
        max_parts: int = 16,
        drafts: bool = True,
    ) -> None:
        self.groups = groups
        self.costs = list(costs)
        self.head = head
        self.copy = copy
        self.max_parts = max_parts
        self.drafts = drafts and chunks
        self._decode = [i for i, g in enumerate(groups) if g.width == 1]
        self._chunks = [i for i, g in enumerate(groups) if g.width > 1 and chunks]
        self.reach = max((groups[i].history for i in self._chunks), default=-1)  # rows that chunks see
        self.max_width = max((groups[i].width for i in self._chunks), default=1)
        self._by_cost: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self.costs_changed()

    # ---- costs ----

    def decode_slot(self, high: int) -> int:
        """The cheapest decode group that sees `high` rows."""
        slot = self._cheapest(False, high)
        assert slot is not None, "a bank has no more rows than its largest decode group"
        return slot

    def chunk_slot(self, high: int) -> int | None:
        """The cheapest chunk group that sees `high` rows; None where none reaches so far."""
        return self._cheapest(True, high)

    def _cheapest(self, chunk: bool, high: int) -> int | None:
        for history, slot in self._by_cost[chunk]:
            if history >= high:
                return slot
        return None

    def single_seconds(self, high: int) -> float:
        """One token by itself."""
        return self.costs[self.decode_slot(high)] + self.head

    def prefill_seconds(self, num_cached: int, num_tokens: int) -> float:
        """Computing the tokens from `num_cached` to `num_tokens` of a prompt that lies in low rows."""
        seconds, single = 0.0, self.costs[self.decode_slot(num_tokens)]
        while num_cached < num_tokens:
            slot = self.chunk_slot(num_cached)
            if slot is None:
                return seconds + single * (num_tokens - num_cached)
            width = min(self.groups[slot].width, num_tokens - num_cached)
            seconds += min(self.costs[slot], single * width)
            num_cached += width
        return seconds

    def entry_seconds(self, num_cached: int, num_tokens: int, highs: Items[int]) -> float:
        """What such a prompt costs a bank beyond the rounds of those who live there, who see `highs` rows and ride
        along."""
        alone = self.prefill_seconds(num_cached, num_tokens)
        slot = self.chunk_slot(min(max(highs, default=0) + num_tokens, self.reach))
        if not highs or slot is None or num_tokens > self.reach:
            return alone
        passes = -(-(num_tokens - num_cached) // self.groups[slot].width)
        return min(alone, passes * max(self.costs[slot] - self.round_seconds(highs), 0.0))

    def worth_reusing(self, num_cached: int, num_tokens: int) -> int:
        """How much of `num_cached` cached tokens a prompt of `num_tokens` should reuse: where chunks do not reach far
        back, computing a few again in a chunk costs less than going on token by token."""
        if self.chunk_slot(num_cached) is not None:
            return num_cached
        shorter = [self.groups[i].history for i in self._chunks if self.groups[i].history < num_cached]
        return min((num_cached, *shorter), key=lambda n: self.prefill_seconds(n, num_tokens))

    def round_seconds(self, highs: Items[int]) -> float:
        """Seconds of the cheapest round of sequences that see these many rows: what placement compares."""
        ordered = sorted(highs)
        rest = sum(self.single_seconds(h) for h in ordered)
        best = rest
        for k, high in enumerate(ordered, 1):
            rest -= self.single_seconds(high)
            slot = self.chunk_slot(high)
            if slot is None or k > min(self.max_parts, self.groups[slot].width):
                break
            best = min(best, self.costs[slot] + k * self.head + rest)
        return best

    def seconds_per_token(self, candidates: Items[Candidate], planned: StepPlan) -> float:
        """Seconds of a pass for each token it is expected to bring forward."""
        tokens = heads = 0.0
        for part in planned.parts:
            gained = self._expected(candidates[part.who]) if part.num_drafts else 0.0
            tokens += part.num_tokens + gained
            if part.num_tokens == candidates[part.who].num_pending:
                heads += 1 + gained
        return (self.costs[planned.slot] + heads * self.head) / tokens

    def observe(self, slot: int, seconds: float, num_heads: int) -> None:
        """A pass of group `slot` with `num_heads` heads took `seconds`. Outliers (the host was busy) count little."""
        layers = max(seconds - num_heads * self.head, 0.2 * self.costs[slot])
        self.costs[slot] += SMOOTHING * (min(layers, 2 * self.costs[slot]) - self.costs[slot])
        self.costs_changed()

    def costs_changed(self) -> None:
        """To be called after `costs` was changed: (history, slot) of decode and of chunk groups, cheapest first."""
        groups, costs = self.groups, self.costs
        decode, chunks = (sorted(slots, key=costs.__getitem__) for slots in (self._decode, self._chunks))
        self._by_cost = ([(groups[i].history, i) for i in decode], [(groups[i].history, i) for i in chunks])

    # ---- plans ----

    def plan(
        self, candidates: Items[Candidate], highs: Items[int] | None = None, *, in_turn: bool = True
    ) -> StepPlan | None:
        """The next pass; None where nothing can run (all blocked).

        `highs` instead of the candidates' own: what if their rows lay there? Not `in_turn`: the pass in which prompts
        go on, or else the next of a round, whoever is left out by it."""
        if highs is None:
            highs = [c.high for c in candidates]
        prompts: list[int] = []
        far: list[int] = []
        running: list[int] = []
        for i, c in enumerate(candidates):
            if not c.blocked:
                (running if c.num_pending == 1 else prompts if c.num_cached <= self.reach else far).append(i)
        prompts.sort(key=lambda i: candidates[i].order)
        if prompts and highs[prompts[0]] <= self.reach:
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

    def _single(self, highs: Items[int], who: int) -> StepPlan:
        return StepPlan(self.decode_slot(highs[who]), (Part(who, 1),))

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
        prompts = self._that_fit(candidates, [i for i in prompts if highs[i] <= self.reach])
        slot, riders = self._riders(highs, max(highs[i] for i in prompts), running)
        parts, room = [Part(i, 1) for i in riders], self.groups[slot].width - len(riders)
        for i in prompts[: self.max_parts - len(riders)]:
            take = min(room, candidates[i].num_pending)
            if take:
                parts.append(Part(i, take))
            room -= take
        alone = sum(p.num_tokens * self.costs[self.decode_slot(highs[p.who])] for p in parts)
        if alone < self.costs[slot]:
            return None
        return StepPlan(slot, tuple(self._with_drafts(candidates, parts, room)))

    def _that_fit(self, candidates: Items[Candidate], prompts: list[int]) -> list[int]:
        """The first of these prompts that fill a chunk."""
        total = 0
        for count, i in enumerate(prompts, 1):
            total += candidates[i].num_pending
            if total >= self.max_width:
                return prompts[:count]
        return prompts

    def _riders(self, highs: Items[int], floor: int, running: list[int]) -> tuple[int, list[int]]:
        """The group of a chunk over at least `floor` rows, and those who ride along because passes of their own would
        cost more."""
        slot = self.chunk_slot(floor)
        assert slot is not None
        ordered = sorted(running, key=highs.__getitem__)
        rest = sum(self.single_seconds(highs[i]) for i in ordered)
        best, best_slot, count = self.costs[slot] + rest, slot, 0
        for k, i in enumerate(ordered[: self.max_parts - 1], 1):
            rest -= self.single_seconds(highs[i])
            slot = self.chunk_slot(max(floor, highs[i]))
            if slot is None:
                break
            if (seconds := self.costs[slot] + k * self.head + rest) < best:
                best, best_slot, count = seconds, slot, k
        return best_slot, ordered[:count]

    def _left_out(self, highs: Items[int], chunk: StepPlan, prompt: int, waiting: list[int]) -> int | None:
        """Who is to have a pass before the next chunk of the oldest prompt: rule 1."""
        carried = {part.who for part in chunk.parts}
        waiting = [i for i in waiting if i not in carried]
        since = sum(self.single_seconds(highs[i]) for i in waiting if i > prompt)  # since the prompt's last pass
        before = [i for i in waiting if i < prompt]
        return before[0] if before and since + self.single_seconds(highs[before[0]]) <= self.costs[chunk.slot] else None

    def _round(self, candidates: Items[Candidate], highs: Items[int], waiting: list[int]) -> StepPlan:
        """Rules 2 and 3: how much of this round one chunk should carry."""
        ordered = sorted((highs[i], i) for i in waiting)
        singles = [self.single_seconds(high) for high, _ in ordered]
        rest = sum(singles)
        best_rate, best = rest / len(ordered), 0
        tokens, heads = float(len(ordered)), 0.0
        for k, (high, i) in enumerate(ordered, 1):
            slot = self.chunk_slot(high)
            if slot is None or k > min(self.max_parts, self.groups[slot].width):
                break
            gained = self._expected(candidates[i])
            tokens += gained
            heads += 1 + gained
            rest -= singles[k - 1]
            rate = (self.costs[slot] + heads * self.head + rest) / tokens
            if rate < (best_rate if k > 1 else GAIN_FOR_DRAFTS * best_rate):
                best_rate, best = rate, k
        if not best:
            return self._single(highs, waiting[0])
        slot = self.chunk_slot(ordered[best - 1][0])
        assert slot is not None
        parts = [Part(i, 1) for _, i in ordered[:best]]
        return StepPlan(slot, tuple(self._with_drafts(candidates, parts, self.groups[slot].width - best)))

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
        out = []
        for part in parts:
            c = candidates[part.who]
            offered = c.num_drafts
            if offered and room and part.num_tokens == c.num_pending:
                part = Part(part.who, part.num_tokens, min(room, offered))
                room -= part.num_drafts
            out.append(part)
        return out

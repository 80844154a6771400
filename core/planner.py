"""Decides the next pass of a bank. Pure: it sees numbers of sequences and measured costs, never the card.

The rules, all of them:

1. A waiting prompt goes on with the very next pass. Every running sequence whose rows a chunk can reach rides along with its next
   token, so nobody pauses longer than one chunk pass and its heads. Prompts fill what is left, older ones first, background ones last.
2. Without prompts, sequences go in rounds: each gets its next token once a round. A round is split into one chunk, which carries
   those with the lowest rows, and single decodes for the rest, so that the time per token is least.
3. Guessed tokens (drafts) ride along in a chunk as far as they are likely to come true; they can also make a chunk worth it for one
   sequence alone. A chunk that is only worth it for its drafts must promise a gain, for a guess may fail.
4. A pass uses the cheapest group that reaches the highest row anybody in it sees. What no chunk group reaches goes token by token.
5. A prompt that begins like an older one which is being computed waits for the common part instead of computing it twice (`blocked`).
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from axpress.core.groups import Group

GAIN_FOR_DRAFTS = 0.95  # a chunk chosen for its guesses alone must cost at most this share of the time without
SMOOTHING = 0.05  # weight of a new measurement in a running average


class Candidate(Protocol):
    """What the planner may know of a sequence."""

    @property
    def num_pending(self) -> int:
        """Tokens known but not yet cached: more than 1 is a prompt (or forced text), 1 the next token."""

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
class Pass:
    """Run group `slot` (index in the program's list) with these parts."""

    slot: int
    parts: tuple[Part, ...]


class Planner:
    """Plans for one model. `groups` are decode groups by growing cache, then chunks by growing history; `costs` are seconds of a whole
    pass without heads, same order; `head` seconds of one head. `max_parts` sequences fit one pass."""

    def __init__(
        self,
        groups: tuple[Group, ...],
        costs: tuple[float, ...],
        head: float,
        *,
        chunks: bool = True,
        max_parts: int = 16,
        drafts: bool = True,
    ) -> None:
        self.groups = groups
        self.costs = list(costs)
        self.head = head
        self.max_parts = max_parts
        self.drafts = drafts and chunks
        self._decode = [i for i, g in enumerate(groups) if g.width == 1]
        self._chunks = [i for i, g in enumerate(groups) if g.width > 1 and chunks]
        self.reach = max((groups[i].history for i in self._chunks), default=groups[self._decode[-1]].history)
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

    def prompt_seconds(self, high: int) -> float:
        """One prompt token among many, over `high` rows."""
        slot = self.chunk_slot(high)
        return self.costs[self.decode_slot(high)] if slot is None else self.costs[slot] / self.groups[slot].width

    def prefill_seconds(self, num_cached: int, num_tokens: int) -> float:
        """Computing the tokens from `num_cached` to `num_tokens` of a prompt that lies in low rows."""
        seconds = 0.0
        while num_cached < num_tokens:
            slot, single = self.chunk_slot(num_cached), self.costs[self.decode_slot(num_cached)]
            width = 1 if slot is None else min(self.groups[slot].width, num_tokens - num_cached)
            seconds += single * width if slot is None else min(self.costs[slot], single * width)
            num_cached += width
        return seconds

    def worth_reusing(self, num_cached: int, num_tokens: int) -> int:
        """How much of `num_cached` cached tokens a prompt of `num_tokens` should reuse: where chunks do not reach far back, computing
        a few again in a chunk costs less than going on token by token."""
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

    def plan(self, candidates: Items[Candidate]) -> Pass | None:
        """The next pass; None where nothing can run (all blocked)."""
        prompts: list[int] = []
        running: list[int] = []
        for i, c in enumerate(candidates):
            if not c.blocked:
                (prompts if c.num_pending > 1 else running).append(i)
        prompts.sort(key=lambda i: candidates[i].order)
        if prompts:
            chosen = self._with_prompts(candidates, prompts, running)
            if chosen is not None:
                return chosen
            running = sorted(prompts + running)  # no chunk helps: prompts take part in rounds, token by token
        if not running:
            return None
        waiting = [i for i in running if not candidates[i].served] or running
        return self._round(candidates, waiting)

    def _with_prompts(self, candidates: Items[Candidate], prompts: list[int], running: list[int]) -> Pass | None:
        """Rule 1. None where no chunk reaches the first prompt's rows, or where single decodes cost less."""
        if self.chunk_slot(candidates[prompts[0]].high) is None:
            return None
        riders = [i for i in running if self.chunk_slot(candidates[i].high) is not None][: self.max_parts - 1]
        prompts = [i for i in prompts if self.chunk_slot(candidates[i].high) is not None]
        prompts = prompts[: self.max_parts - len(riders)]
        slot = self.chunk_slot(max(candidates[i].high for i in riders + prompts))
        assert slot is not None
        parts, room = [Part(i, 1) for i in riders], self.groups[slot].width - len(riders)
        for i in prompts:
            take = min(room, candidates[i].num_pending)
            if take:
                parts.append(Part(i, take))
            room -= take
        alone = sum(p.num_tokens * self.costs[self.decode_slot(candidates[p.who].high)] for p in parts)
        if alone < self.costs[slot]:
            return None
        return Pass(slot, tuple(self._with_drafts(candidates, parts, room)))

    def _round(self, candidates: Items[Candidate], waiting: list[int]) -> Pass:
        """Rules 2 and 3: how much of this round one chunk should carry."""
        ordered = sorted((candidates[i].high, i) for i in waiting)
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
            return Pass(self.decode_slot(candidates[waiting[0]].high), (Part(waiting[0], 1),))
        slot = self.chunk_slot(ordered[best - 1][0])
        assert slot is not None
        parts = [Part(i, 1) for _, i in ordered[:best]]
        return Pass(slot, tuple(self._with_drafts(candidates, parts, self.groups[slot].width - best)))

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

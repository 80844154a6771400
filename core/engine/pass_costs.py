"""What passes cost, and every question on it: which group is cheapest, what a prompt, a round or a place will take.

The figures are measured when a model is loaded (probe.py) and with each pass (`observe`); `axpress plan` takes them
from a timing profile instead. Times are seconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..device.probe import Costs
from ..device.shape_groups import Group

SMOOTHING = 0.05  # weight of a new measurement in a running average
FIRST_DOUBT, LAST_DOUBT = 16, 1024  # passes without a measurement after which a figure is doubted: at first, at most


class PrefillPass(NamedTuple):
    """A part of a prompt: `num_tokens` in one chunk of group `slot`, or token by token (None); its seconds, no head."""

    slot: int | None
    num_tokens: int
    seconds: float


def overlapped(rounds: Sequence[float], num_cards: int) -> float:
    """Seconds of a round of all banks, by those of each alone: over `num_cards` cards they run at the same time, as far
    as each card has work; but a bank's own passes follow each other."""
    return max(max(rounds), sum(rounds) / num_cards)


class PassCosts:
    """Costs of one model's passes. `groups` are decode groups by growing cache, then chunks by growing history; a
    `slot` is an index into them. `seconds` are those of a whole pass without heads, by slot; `head` those of one token
    chosen, `copy` of moving one row in all layers. A pass has at most `max_heads` heads; not `chunks`: decode groups
    only; `full_chunks`: none that is not full, and so of one prompt.

    Where a model has recurrent layers the seconds of a chunk have those of one text in them: `state_chunk`; each
    further text takes them again, or `state_decode` for a single token."""

    def __init__(
        self,
        groups: Sequence[Group],
        figures: Costs,
        *,
        chunks: bool = True,
        full_chunks: bool = False,
        max_heads: int = 16,
    ) -> None:
        self.groups, self.full_chunks = tuple(groups), full_chunks
        self.max_heads = max_heads
        self._decode = [slot for slot, g in enumerate(self.groups) if g.width == 1]
        self._chunks = [slot for slot, g in enumerate(self.groups) if g.width > 1 and chunks]
        self.reach = max((self.groups[slot].history for slot in self._chunks), default=-1)  # rows that chunks see
        self.max_width = max((self.groups[slot].width for slot in self._chunks), default=1)
        self._rows = [self.groups[slot].history for slot in self._decode]
        self._histories = [self.groups[slot].history for slot in self._chunks]
        self.set(figures)

    def set(self, figures: Costs) -> None:
        """Believes these figures from now on."""
        self.seconds, self.head, self.copy = list(figures.groups), figures.head, figures.copy
        self.state_decode, self.state_chunk = figures.state_decode, figures.state_chunk
        self._measured = list(figures.groups)  # `seconds` as they were before they were doubted
        self._num_passes = 0
        self._last_pass = [0] * len(self.groups)  # of each group
        self._doubt_after = [FIRST_DOUBT] * len(self.groups)
        self.empty = figures.empty
        self._sort()

    def observe(self, slot: int, seconds: float, num_heads: int, further: tuple[int, float] = (0, 0.0)) -> None:
        """A pass of group `slot` with `num_heads` heads took `seconds`, `further` heads (how many, seconds) came after
        it. Outliers (the host was busy) count little; but what a group takes that was long not measured replaces what
        was believed of it."""
        known = self._measured[slot]
        self._observe_heads(*further)
        if seconds < num_heads * self.head:  # the host was busy when the head was timed
            self._observe_heads(num_heads, seconds)
        layers = min(max(seconds - num_heads * self.head, 0.2 * self.seconds[slot]), 2 * known)
        self._num_passes += 1
        doubted = self._num_passes - self._last_pass[slot] > self._doubt_after[slot]
        self._last_pass[slot] = self._num_passes
        if doubted:
            self._doubt_after[slot] = min(2 * self._doubt_after[slot], LAST_DOUBT)
        self._measured[slot] = self.seconds[slot] = layers if doubted else known + SMOOTHING * (layers - known)
        for slots in (self._decode, self._chunks):
            self._doubt(slots)
        self._sort()

    def _observe_heads(self, count: int, seconds: float) -> None:
        """`count` heads by themselves took `seconds`."""
        if count:
            self.head += SMOOTHING * (min(seconds / count, 2 * self.head) - self.head)

    def _doubt(self, slots: list[int]) -> None:
        """Halves figures that were long not measured, down to what groups of less history cost: one that came out dear
        on a busy host would never be chosen, and so never be corrected. One that is dear costs a pass now and then,
        ever more rarely."""
        floor = min(self.seconds[slot] for slot in self._decode)
        for slot in slots:
            age, believed = self._num_passes - self._last_pass[slot], self.seconds[slot]
            if age and age % self._doubt_after[slot] == 0:
                believed /= 2
            self.seconds[slot] = min(max(believed, floor), self._measured[slot])
            floor = max(floor, self.seconds[slot])

    def _sort(self) -> None:
        """Of each chunk group, the cheapest that reaches at least as far."""
        self._least = min(self.seconds[slot] for slot in self._decode)
        self._cheapest = self._chunks.copy()
        for i in range(len(self._chunks) - 2, -1, -1):
            if self.seconds[self._cheapest[i + 1]] < self.seconds[self._cheapest[i]]:
                self._cheapest[i] = self._cheapest[i + 1]

    # ---- one pass ----

    def decode_slot(self, high: int) -> int:
        """The smallest decode group that sees `high` rows: the card reads all rows of a group, so none costs less, and
        which it is does not hang on measurements."""
        return self._decode[bisect_left(self._rows, high)]

    def chunk_slot(self, high: int) -> int | None:
        """The cheapest chunk group that sees `high` rows; None where none reaches so far."""
        at = bisect_left(self._histories, high)
        return self._cheapest[at] if at < len(self._cheapest) else None

    def layers_seconds(self, slot: int, num_tokens: int) -> float:
        """A pass of group `slot` with so many tokens in it, without heads: never less than a decode."""
        seconds = self.seconds[slot]
        return max(seconds - self.saved_seconds(slot, num_tokens), min(seconds, self._least))

    def saved_seconds(self, slot: int, num_tokens: int) -> float:
        """What a pass of group `slot` saves because it holds no more tokens than these."""
        return (self.groups[slot].width - num_tokens) * self.empty

    def pass_seconds(self, slot: int, num_heads: float, num_tokens: int | None = None) -> float:
        """A pass of group `slot` in which so many tokens are chosen; full, unless `num_tokens` says what it holds.
        Those that are chosen are of as many texts; where it has others, these are of one more. Its layers take never
        less than a decode's, whatever was measured."""
        layers = self.seconds[slot] if num_tokens is None else self.layers_seconds(slot, num_tokens)
        if self.state_chunk and self.groups[slot].width > 1:
            layers += num_heads * self.state_decode
            if num_tokens is not None and num_tokens <= num_heads:
                layers = max(layers - self.state_chunk, min(self.seconds[slot], self._least))
        return layers + num_heads * self.head

    def further_states_seconds(self, slot: int, lengths: Iterable[int]) -> float:
        """What a pass of group `slot` took for recurrent layers beyond what `seconds` has of them, by the numbers of
        tokens of its parts."""
        taken = sum(self.state_decode if length == 1 else self.state_chunk for length in lengths)
        return taken - (self.state_decode if self.groups[slot].width == 1 else self.state_chunk)

    def chunk_seconds(self, high: int, num_heads: float) -> float | None:
        """A chunk over `high` rows; None where no group reaches so far."""
        slot = self.chunk_slot(high)
        return None if slot is None else self.pass_seconds(slot, num_heads)

    def single_seconds(self, high: int) -> float:
        """One token by itself."""
        return self.seconds[self.decode_slot(high)] + self.head

    # ---- several passes ----

    def prefill(self, num_cached: int, num_tokens: int) -> Iterator[PrefillPass]:
        """How the tokens from `num_cached` to `num_tokens` of a prompt that lies in low rows are computed."""
        single = self.seconds[self.decode_slot(num_tokens)]
        while num_cached < num_tokens:
            slot, count = self.chunk_slot(num_cached), num_tokens - num_cached
            if slot is not None:
                count = min(self.groups[slot].width, count)
            if slot is not None and (seconds := self.layers_seconds(slot, count)) <= single * count:
                yield PrefillPass(slot, count, seconds)
            else:
                yield PrefillPass(None, count, single * count)
            num_cached += count

    def prefill_seconds(self, num_cached: int, num_tokens: int) -> float:
        """What that takes, without a head."""
        return sum(part.seconds for part in self.prefill(num_cached, num_tokens))

    def entry_seconds(self, num_cached: int, num_tokens: int, highs: Sequence[int]) -> float:
        """What such a prompt costs a bank beyond the rounds of those who live there, who see `highs` rows and ride
        along."""
        alone = self.prefill_seconds(num_cached, num_tokens)
        slot = self.chunk_slot(min(max(highs, default=0) + num_tokens, self.reach))
        if not highs or slot is None or num_tokens > self.reach:
            return alone
        passes = -(-(num_tokens - num_cached) // self.groups[slot].width)
        return min(alone, passes * max(self.seconds[slot] - self.round_seconds(highs), 0.0))

    def worth_reusing(self, num_cached: int, num_tokens: int) -> int:
        """How much of `num_cached` cached tokens a prompt of `num_tokens` should reuse: where chunks do not reach far
        back, computing a few again in a chunk costs less than going on token by token."""
        if self.chunk_slot(num_cached) is not None:
            return num_cached
        shorter = [self.groups[slot].history for slot in self._chunks if self.groups[slot].history < num_cached]
        return min((num_cached, *shorter), key=lambda n: self.prefill_seconds(n, num_tokens))

    def round_seconds(self, highs: Sequence[int]) -> float:
        """The cheapest round of sequences that see these many rows, a token for each: what placement compares."""
        ordered = sorted(highs)
        best = rest = sum(self.single_seconds(high) for high in ordered)
        for count, high in enumerate(ordered, 1):
            rest -= self.single_seconds(high)
            slot = self.chunk_slot(high)
            if slot is None or count > min(self.max_heads, self.groups[slot].width):
                break
            best = min(best, self.pass_seconds(slot, count, count) + rest)
        return best

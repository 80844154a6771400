"""Decides the next pass. Pure: it knows groups and their measured costs, never the card.

Today one sequence runs at a time, so the only choice is how its prompt is computed; sharing passes between sequences
comes here.
"""

from __future__ import annotations

from dataclasses import dataclass

from axpress.core.groups import Group


@dataclass(frozen=True, slots=True)
class Pass:
    """Run group `slot` (index in the program's list) on the next `num_tokens` tokens."""

    slot: int
    num_tokens: int


class Planner:
    """Chooses groups for sequences whose context lies in the rows 0..num_cached of a bank.

    `groups` are decode groups by growing cache, then chunks by growing history; `costs` are seconds a pass, same order.
    """

    def __init__(self, groups: tuple[Group, ...], costs: tuple[float, ...], *, chunks: bool = True) -> None:
        self.groups = groups
        self.costs = list(costs)
        self._decode = [i for i, g in enumerate(groups) if g.width == 1]
        self._chunks = [i for i, g in enumerate(groups) if g.width > 1 and chunks]

    @property
    def max_width(self) -> int:
        """The most tokens that one pass carries."""
        return max((self.groups[i].width for i in self._chunks), default=1)

    def decode(self, num_cached: int) -> int:
        """The decode group that costs least among those that see `num_cached` rows."""
        return min((i for i in self._decode if self.groups[i].history >= num_cached), key=lambda i: (self.costs[i], i))

    def prompt(self, num_cached: int, num_pending: int) -> Pass:
        """The next pass of a prompt with `num_pending` tokens left: a chunk, or single decodes where those cost less or where
        no chunk group reaches back far enough."""
        single = self.decode(num_cached)
        fits = [i for i in self._chunks if self.groups[i].history >= num_cached]
        if not fits:
            return Pass(single, 1)
        best = min(fits, key=lambda i: (self.costs[i] / min(self.groups[i].width, num_pending), i))
        count = min(self.groups[best].width, num_pending)
        if count * self.costs[single] < self.costs[best]:
            return Pass(single, 1)
        return Pass(best, count)

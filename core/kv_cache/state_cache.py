"""States of recurrent layers: who has which slot of the card, and which are kept to go on from.

A state cannot be cut back as rows can: a text goes on from what is known of exactly its beginning, or from none of it.
So states are kept where texts may part or go on (at the ends of passes over a prompt, of messages, and of answers),
each under the tokens before it, until its slot is needed: those within prompts first, least recently used before
others. A state is never written again, so who keeps it and who goes on from it have the same slot.

Plain bookkeeping for one thread, like the pool of rows."""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from .row_pool import IntegrityError


class Prefix(NamedTuple):
    """A beginning of texts, under which its state is kept."""

    cache_salt: bytes
    num_tokens: int
    digest: bytes


class StateCache:
    """Slots from `first` to `num_slots`, each free or held with a counted number of references; those below are not
    counted: they are nobody's."""

    def __init__(self, num_slots: int, first: int) -> None:
        self.first, self.num_slots = first, num_slots
        self._counts = [0] * num_slots
        self._free = list(range(num_slots - 1, first - 1, -1))
        self._lasting: OrderedDict[Prefix, int] = OrderedDict()  # the least recently used first
        self._passing: OrderedDict[Prefix, int] = OrderedDict()
        self._lengths: dict[bytes, Counter[int]] = {}  # of a salt's prefixes

    @property
    def num_kept(self) -> int:
        """Prefixes that texts can go on from."""
        return len(self._lasting) + len(self._passing)

    @property
    def most_texts(self) -> int:
        """How many can run at a time: each has a state, and leaves another with its next pass."""
        return max((self.num_slots - self.first) // 2, 1)

    # ---- slots ----

    def make_free(self, count: int) -> bool:
        """Has `count` slots free; what is kept gives way. False where that is not enough."""
        while len(self._free) < count and self._drop_one():
            pass
        return len(self._free) >= count

    def take(self) -> int:
        """A free slot, held once; `make_free` came before."""
        slot = self._free.pop()
        self._counts[slot] = 1
        return slot

    def hold(self, slot: int) -> None:
        """One reference more."""
        if slot >= self.first:
            self._counts[slot] += 1

    def release(self, slot: int) -> None:
        """One reference less; without any it is free. IntegrityError: it was."""
        if slot < self.first:
            return
        if not self._counts[slot]:
            raise IntegrityError(f"state {slot} is released and nobody holds it")
        self._counts[slot] -= 1
        if not self._counts[slot]:
            self._free.append(slot)

    # ---- prefixes ----

    def keep(self, cache_salt: bytes, tokens: array, slot: int, *, lasting: bool) -> None:
        """`slot` has the state behind `tokens`, int32. Not `lasting`: it goes before those that are."""
        prefix = _prefix(cache_salt, tokens, len(tokens))
        if prefix in self._lasting:
            self._lasting.move_to_end(prefix)
        elif prefix in self._passing:
            self._touch(prefix, lasting)
        elif slot >= self.first:
            (self._lasting if lasting else self._passing)[prefix] = slot
            self._lengths.setdefault(cache_salt, Counter())[len(tokens)] += 1
            self.hold(slot)

    def longest(self, cache_salt: bytes, tokens: array) -> int:
        """How many of these tokens a text could go on from. Nothing changes."""
        found = self._search(cache_salt, tokens)
        return found.num_tokens if found else 0

    def find(self, cache_salt: bytes, tokens: array) -> tuple[int, int]:
        """The same, and the slot, which is held for the caller; (0, 0): none. Counts as a use."""
        found = self._search(cache_salt, tokens)
        if found is None:
            return 0, 0
        self._touch(found, lasting=True)
        slot = self._lasting[found]
        self.hold(slot)
        return found.num_tokens, slot

    def _search(self, cache_salt: bytes, tokens: array) -> Prefix | None:
        lengths = self._lengths.get(cache_salt, ())
        for length in sorted((n for n in lengths if n <= len(tokens)), reverse=True):
            prefix = _prefix(cache_salt, tokens, length)
            if prefix in self._lasting or prefix in self._passing:
                return prefix
        return None

    def _touch(self, prefix: Prefix, lasting: bool) -> None:
        kept = self._lasting if prefix in self._lasting else self._passing
        if lasting and kept is self._passing:
            self._lasting[prefix] = kept.pop(prefix)
        else:
            kept.move_to_end(prefix)

    def _drop_one(self) -> bool:
        """Forgets the prefix that is missed least. False: none is left."""
        kept = self._passing or self._lasting
        if not kept:
            return False
        prefix, slot = kept.popitem(last=False)
        lengths = self._lengths[prefix.cache_salt]
        lengths[prefix.num_tokens] -= 1
        if not lengths[prefix.num_tokens]:
            del lengths[prefix.num_tokens]
            if not lengths:
                del self._lengths[prefix.cache_salt]
        self.release(slot)
        return True

    def check_integrity(self, held: Iterable[int]) -> None:
        """Raises IntegrityError where references are not those of prefixes and of `held`: slots that others have."""
        expected = Counter(slot for slot in held if slot >= self.first)
        expected.update(self._lasting.values())
        expected.update(self._passing.values())
        counted = {slot: count for slot, count in enumerate(self._counts) if count}
        if counted != dict(expected):
            raise IntegrityError(f"states are held {dict(expected)} and were counted {counted}")
        if sorted([*self._free, *counted]) != list(range(self.first, self.num_slots)):
            raise IntegrityError("a state is neither free nor held")
        if sum(sum(lengths.values()) for lengths in self._lengths.values()) != self.num_kept:
            raise IntegrityError("lengths of prefixes were not counted right")


def _prefix(cache_salt: bytes, tokens: array, length: int) -> Prefix:
    digest = blake2b(memoryview(tokens)[:length], digest_size=16).digest()
    return Prefix(cache_salt, length, digest)

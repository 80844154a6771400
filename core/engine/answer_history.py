"""Past answers, kept in memory to guess the next ones from: who plays one character all day repeats himself.

One ring of tokens, and chains of equal runs in it, as compressors search their window: its memory is taken once and
never grows, and new answers take the place of the oldest, whoever they were for. What one tenant (cache_salt) was
answered is never looked at for another."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence

from .draft_chances import MAX_MATCH, NO_DRAFT, Draft, DraftChances, Source

GRAM = 3  # tokens that must agree before a continuation is considered
MAX_CANDIDATES = 8  # latest places looked at
MAX_LINKS = 16  # of a chain followed to find them: other runs may have the same hash
NUM_CONTEXT = 8  # tokens of a prompt's end that are kept before its answer: how it begins depends on them
BETWEEN = -1  # stands before each answer


class Tenant:
    """Those who share answers. `number`: whose tokens are whose in the ring, never given twice; `num_answers` of them
    begin there; `chances`: what became of guesses."""

    __slots__ = ("cache_salt", "chances", "num_answers", "number")

    def __init__(self, cache_salt: bytes, number: int, chances: DraftChances) -> None:
        self.cache_salt, self.number, self.chances = cache_salt, number, chances
        self.num_answers = 0


class AnswerHistory:
    """The latest answers: `capacity` tokens, rounded up to a power of two, at 24 bytes each. For the engine's thread
    only."""

    def __init__(self, capacity: int) -> None:
        self._size = 1 << max(capacity - 1, MAX_MATCH).bit_length()
        self._tokens = array("i", bytes(4 * self._size))
        self._owners = array("i", bytes(4 * self._size))
        self._earlier = array("q", bytes(8 * self._size))  # after a run: where one of the same hash ended before
        self._latest = array("q", bytes(8 * self._size))  # by hash: where such a run ended last
        self._end = 0  # tokens written since the beginning; token i lies at i modulo the size
        self._answers: deque[tuple[int, Tenant]] = deque()  # where each begins, the oldest first
        self._tenants: dict[bytes, Tenant] = {}
        self._num_tenants = 0

    @property
    def num_bytes(self) -> int:
        """What the ring and its chains take."""
        return sum(len(a) * a.itemsize for a in (self._tokens, self._owners, self._earlier, self._latest))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Tokens, answers and tenants kept."""
        return min(self._end, self._size), len(self._answers), len(self._tenants)

    def tenant(self, cache_salt: bytes) -> Tenant | None:
        """Whose answers may be looked at for a request of this salt; None: there are none."""
        return self._tenants.get(cache_salt)

    # ---- what was answered ----

    def add(self, cache_salt: bytes, tokens: Sequence[int], chances: DraftChances) -> None:
        """Keeps an answer, with the end of its prompt before it. `chances`: for a tenant that has none."""
        tokens = tokens[-(self._size // 2) :]
        if len(tokens) <= GRAM:
            return
        tenant = self._tenants.get(cache_salt)
        if tenant is None:
            self._num_tenants += 1
            tenant = self._tenants[cache_salt] = Tenant(cache_salt, self._num_tenants, chances)
        tenant.num_answers += 1
        self._answers.append((self._end, tenant))
        self._put(BETWEEN, tenant.number)
        for i, token in enumerate(tokens):
            self._put(token, tenant.number)
            if i >= GRAM - 1:
                run = self._hash(tenant, tokens[i - GRAM + 1 : i + 1])
                self._earlier[(self._end - 1) % self._size] = self._latest[run]
                self._latest[run] = self._end
        while self._answers[0][0] < self._end - self._size:
            self._forget(self._answers.popleft()[1])

    def _put(self, token: int, number: int) -> None:
        at = self._end % self._size
        self._tokens[at], self._owners[at] = token, number
        self._end += 1

    def _forget(self, tenant: Tenant) -> None:
        """An answer begins no longer in the ring."""
        tenant.num_answers -= 1
        if not tenant.num_answers:
            del self._tenants[tenant.cache_salt]

    def _hash(self, tenant: Tenant, run: Sequence[int]) -> int:
        return hash((tenant.number, *run)) % self._size

    # ---- what may come ----

    def propose(self, tenant: Tenant, tail: Sequence[int], limit: int) -> Draft:
        """What followed the longest suffix of `tail` in the tenant's answers, at most `limit` tokens: the longest of
        those that went on with what most of them did, the latest of equally long ones."""
        match, ends = self._longest(tenant, tail)
        ways = [way for end in ends if (way := self._continuation(end, limit))]
        if not ways:
            return NO_DRAFT
        nexts = [way[0] for way in ways]
        likeliest = max(nexts, key=nexts.count)
        agreed = len(ways) > 1 and nexts.count(likeliest) == len(ways)
        way = max((way for way in ways if way[0] == likeliest), key=len)
        return Draft(way, match, Source.AGREED if agreed else Source.HISTORY)

    def _longest(self, tenant: Tenant, tail: Sequence[int]) -> tuple[int, list[int]]:
        """Length of the longest suffix of `tail`, and where it ends, the latest first."""
        longest, ends = GRAM, list[int]()
        tail = array("i", tail[-MAX_MATCH:])
        end = self._latest[self._hash(tenant, tail[-GRAM:])] if len(tail) >= GRAM else 0
        for _ in range(MAX_LINKS):
            if end < self._oldest + GRAM or not end or len(ends) == MAX_CANDIDATES:
                break
            if self._owners[(end - 1) % self._size] == tenant.number:
                length = self._common(tail, end, longest)
                if length == longest:
                    ends.append(end)
                elif length > longest:
                    longest, ends = length, [end]
            end = self._earlier[(end - 1) % self._size]
        return longest, ends

    @property
    def _oldest(self) -> int:
        return max(self._end - self._size, 0)

    def _common(self, tail: array[int], end: int, least: int) -> int:
        """How many tokens before `end` are those at the end of `tail`; 0: less than `least`."""
        most = min(len(tail), end - self._oldest)
        if most < least or self._span(end - least, least) != tail[-least:]:
            return 0
        length = least
        while length < most and self._tokens[(end - length - 1) % self._size] == tail[-length - 1]:
            length += 1
        return length

    def _span(self, start: int, count: int) -> array[int]:
        """`count` tokens from `start` on."""
        at = start % self._size
        span = self._tokens[at : at + count]
        return span if len(span) == count else span + self._tokens[: count - len(span)]

    def _continuation(self, end: int, limit: int) -> tuple[int, ...]:
        """What follows there in the same answer."""
        way = tuple(self._span(end, min(limit, self._end - end)))
        return way[: way.index(BETWEEN)] if BETWEEN in way else way

"""--rate: requests and tokens that one key, or without keys one address, may have in a minute; and the bound on wrong
keys of one address.

Both are buckets that fill evenly: a minute's worth may come at once, then as much as flows in."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from .errors import HttpError

MAX_CLIENTS = 10_000
WRONG_KEYS = 20
"""In a minute, from one address."""


class Bucket:
    """`limit` a minute. Its level may go below zero: what cannot be known before is taken afterwards."""

    __slots__ = ("_at", "_clock", "level", "limit")

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.level = float(limit)
        self._clock = clock
        self._at = clock()

    def fill(self) -> None:
        """Let in what has come since the last look."""
        now = self._clock()
        self.level = min(float(self.limit), self.level + (now - self._at) * self.limit / 60)
        self._at = now

    def wait(self, amount: float) -> float:
        """Seconds until so much is there; of more than it holds, until it is full."""
        self.fill()
        return max(0.0, min(amount, self.limit) - self.level) * 60 / self.limit


class Rates:
    """The buckets of all clients. Event loop only."""

    def __init__(self, limits: tuple[int | None, int | None], clock: Callable[[], float] = monotonic) -> None:
        self._limits = {name: limit for name, limit in zip(("requests", "tokens"), limits, strict=True) if limit}
        self._clock = clock
        self._clients: dict[bytes, dict[str, Bucket]] = {}

    def take(self, client: bytes, name: str, amount: int) -> None:
        """Takes `amount` of "requests" or "tokens". Raises HttpError 429 where so much is not there now."""
        if name not in self._limits:
            return
        bucket = self._of(client)[name]
        if seconds := bucket.wait(amount):
            text = f"This client may have {bucket.limit} {name} a minute here; try again in {math.ceil(seconds)} s."
            raise HttpError(429, text, code="rate_limit_exceeded", headers={"retry-after": str(math.ceil(seconds))})
        bucket.level -= amount

    def spend(self, client: bytes, tokens: int) -> None:
        """Tokens that were generated."""
        if "tokens" in self._limits:
            self._of(client)["tokens"].level -= tokens

    def give_back(self, client: bytes) -> None:
        """A request that is not to count."""
        self._of(client)["requests"].level += 1

    def headers(self, client: bytes) -> dict[str, str]:
        """x-ratelimit-*, as OpenAI's clients know them."""
        said = {}
        for name, bucket in self._of(client).items() if self._limits else ():
            said[f"x-ratelimit-limit-{name}"] = str(bucket.limit)
            said[f"x-ratelimit-reset-{name}"] = f"{bucket.wait(bucket.limit):.3f}s"
            said[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.level)))
        return said

    def _of(self, client: bytes) -> dict[str, Bucket]:
        if client not in self._clients:
            if len(self._clients) >= MAX_CLIENTS:
                self._forget()
            self._clients[client] = {name: Bucket(limit, self._clock) for name, limit in self._limits.items()}
        return self._clients[client]

    def _forget(self) -> None:
        """Drops clients whose buckets are full, which is how new ones begin; and, where none is, all."""
        for client in list(self._clients):
            if not any(bucket.wait(bucket.limit) for bucket in self._clients[client].values()):
                del self._clients[client]
        if len(self._clients) >= MAX_CLIENTS:
            self._clients.clear()


class WrongKeys:
    """Bounds how many keys one address can try. A key that was right from there before is taken all the same: behind
    a proxy all clients have one address."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._tries = Rates((WRONG_KEYS, None), clock)
        self._right: set[tuple[str, bytes]] = set()

    def check(self, address: str, tenant: bytes | None) -> None:
        """A key was presented; `tenant`: whose it is, None where it is nobody's. Raises HttpError 429."""
        if tenant is not None and (address, tenant) in self._right:
            return
        # a right one costs nothing, but it is told only where a wrong one would be
        self._tries.take(address.encode(), "requests", 1)
        if tenant is not None:
            self._tries.give_back(address.encode())
            if len(self._right) >= MAX_CLIENTS:
                self._right.clear()
            self._right.add((address, tenant))

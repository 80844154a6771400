"""What systemd is told of the server (sd_notify): ready, how the loading goes, that the engine lives, in words.

The protocol is a line or several to a datagram socket that NOTIFY_SOCKET names; see sd_notify(3)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from time import monotonic

from .serving.canary import Canary
from .serving.engine_service import Service

log = logging.getLogger("axpress.server")

LOOK_SECONDS = 2.0
LOAD_SECONDS = 120
"""While it loads, systemd is asked for so much more time with each look."""


class Notifier:
    """A datagram socket to the one who started us, or nothing where nobody listens. Never waits, never raises."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(microseconds) / 1e6 if watched and microseconds.isdigit() else None
        self._socket: socket.socket | None = None
        if address[:1] in ("/", "@"):
            self._address = "\0" + address[1:] if address[0] == "@" else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return self._socket is not None

    def tell(self, *assignments: str) -> None:
        """Send `NAME=value` assignments together."""
        if self._socket is not None:
            try:
                self._socket.sendto("\n".join(assignments).encode(), self._address)
            except OSError as exc:
                log.debug("systemd was not told %s: %s", assignments, exc)

    def close(self) -> None:
        """Free the descriptor."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Supervised:
    """Looks at the server every LOOK_SECONDS, whether systemd listens or not: a change of its state is logged then."""

    def __init__(self, service: Service, canary: Canary, notifier: Notifier) -> None:
        self._service, self._canary, self._notifier = service, canary, notifier
        self._told_ready = False
        self._status = ""
        self._fed = 0.0

    async def run(self) -> None:
        """For the server's life."""
        watchdog = self._notifier.watchdog_seconds
        pause = min(LOOK_SECONDS, watchdog / 4) if watchdog else LOOK_SECONDS
        while True:
            await self._look(watchdog)
            await asyncio.sleep(pause)

    async def _look(self, watchdog: float | None) -> None:
        status, reason = self._service.condition()
        if not self._notifier.listens:
            return
        words = self._words(status, reason)
        news = [f"STATUS={words}"] if words != self._status else []
        self._status = words
        if status == "loading" and not self._told_ready and not self._service.load_hangs:
            news.append(f"EXTEND_TIMEOUT_USEC={LOAD_SECONDS * 1_000_000}")
        elif status == "ready" and not self._told_ready and await self._canary.alive():
            self._told_ready = True
            news.append("READY=1")
        if watchdog and self._told_ready and monotonic() - self._fed >= watchdog / 3 and await self._lives(status):
            self._fed = monotonic()
            news.append("WATCHDOG=1")
        if news:
            self._notifier.tell(*news)

    async def _lives(self, status: str) -> bool:
        """Whether tokens can be had, or what is going on has a bound of its own; a server that stays failed does so
        since starts did not help."""
        return status in ("hot", "recovering", "failed", "draining", "closed") or (
            status == "ready" and await self._canary.alive()
        )

    def _words(self, status: str, reason: str) -> str:
        if status != "ready":
            return f"{status}: {reason}"
        return f"ready: {self._service.num_answers} requests open; {self._service.banner()}"

    def stopping(self) -> None:
        """The server is told to end."""
        self._notifier.tell("STOPPING=1", "STATUS=shutting down: running answers may end")

"""From the engine's thread to the event loop: one queue, one wake-up for all that is in it.

The engine's thread only appends and, when the loop has not been woken yet, writes eight bytes to an eventfd. The loop
takes everything that is there, so tokens that arrived together are handled, and sent, together."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from axpress.core.request import Delta

log = logging.getLogger("axpress.server")

GATHER_SECONDS = 0.001
"""Deltas that come within this of the last ones are taken together: beyond 1,000 tokens/s a wake-up and a write for
each would cost more than the token. Slower answers never wait."""

Receiver = Callable[[list[Delta]], None]
"""Called on the loop with the deltas of one answer that arrived together, in order; must not block."""


class OutputStream:
    """One answer's way through the bridge. `sink` is for the engine's thread, `close` for the loop."""

    __slots__ = ("_bridge", "_receive", "batch")

    def __init__(self, bridge: EngineBridge, receive: Receiver) -> None:
        self._bridge = bridge
        self._receive: Receiver | None = receive
        self.batch: list[Delta] = []

    def sink(self, delta: Delta) -> None:
        """Hand a delta to the loop. Thread-safe, never blocks, never raises."""
        bridge = self._bridge
        bridge.arrived.append((self, delta))
        if not bridge.signalled:
            bridge.signalled = True
            bridge.wake()

    def deliver(self) -> None:
        """Pass on what arrived. A receiver that fails hears nothing more; the others are not disturbed."""
        deltas, self.batch = self.batch, []
        if self._receive is not None:
            try:
                self._receive(deltas)
            except Exception:
                self._receive = None
                log.exception("an answer could not be passed on")

    def close(self) -> None:
        """Drop what may still arrive."""
        self._receive = None


class EngineBridge:
    """The queue and its wake-up. Make it on the loop; `close` after the engine was closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.arrived: deque[tuple[OutputStream, Delta]] = deque()
        self.signalled = False
        self._taken = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        if hasattr(os, "eventfd"):
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._sockets = socket.socketpair()
            for end in self._sockets:
                end.setblocking(False)
            self._fd = self._sockets[0].fileno()
        loop.add_reader(self._fd, self._woken)

    def channel(self, receive: Receiver) -> OutputStream:
        """A channel whose deltas are passed to `receive`."""
        return OutputStream(self, receive)

    def wake(self) -> None:
        """Make the loop look at the queue. Thread-safe."""
        try:
            if self._sockets is None:
                os.eventfd_write(self._fd, 1)
            else:
                self._sockets[1].send(b"\0")
        except (BlockingIOError, OSError):
            pass  # full: the loop is woken already; closed: nobody listens any more

    def _woken(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._fd, 8 if self._sockets is None else 4096)
        if self._timer is not None:
            return  # it will look
        if monotonic() - self._taken < GATHER_SECONDS:
            self._timer = self._loop.call_later(GATHER_SECONDS, self._gather)
            return
        # Cleared before looking: what is appended from here on wakes us again.
        self.signalled = False
        self._take()

    def _gather(self) -> None:
        """By timer while deltas come fast. `signalled` stays set, so the engine's thread spends nothing on waking
        us."""
        if self.arrived:
            self._take()
            self._timer = self._loop.call_later(GATHER_SECONDS, self._gather)
            return
        self._timer = None
        self.signalled = False
        if self.arrived:  # came between the look and the line above, and saw it still set
            self._take()

    def _take(self) -> None:
        self._taken = monotonic()
        arrived = self.arrived
        touched: list[OutputStream] = []
        for _ in range(len(arrived)):
            channel, delta = arrived.popleft()
            if not channel.batch:
                touched.append(channel)
            channel.batch.append(delta)
        for channel in touched:
            channel.deliver()

    def close(self) -> None:
        """Stop listening and free the descriptor."""
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        if self._timer is not None:
            self._timer.cancel()
        self.signalled = True  # late sinks stay quiet
        if self._sockets is None:
            os.close(self._fd)
        else:
            for end in self._sockets:
                end.close()
        self._fd = -1

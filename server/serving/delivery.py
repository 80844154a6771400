"""The two ways in which an answer leaves: as a stream, or whole."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sanic.request import Request

from axpress.core.errors import FailureKind
from axpress.core.request import Delta

from ..http.errors import HttpError, failure_error
from .dialect import Answer, StreamWriter, Totals
from .prepared_request import PreparedRequest

log = logging.getLogger("axpress.server")

HIGH_WATER = 65536
"""Bytes in a connection's write buffer above which Sanic's `send` waits; we stop writing past it at the same mark."""

MAX_UNREAD = 1 << 16
"""Tokens, of all answers of a request and with their log-probabilities counted, that are kept for a stream whose client
does not read: some tens of megabytes. Then it is cut, however short that was."""

KEEP_ALIVE_SECONDS = 5.0
"""Silence after which a stream is shown to live: in the queue, in a long prompt, or while the card is brought back."""


def failure(last: Delta) -> HttpError | None:
    """What to tell the client when an answer ended without being finished, or None."""
    if last.finish_reason == "cancelled":
        return failure_error(FailureKind.CLOSED, last.error)
    if last.finish_reason == "error":
        return failure_error(last.failure or FailureKind.INTERNAL, last.error, last.error_code)
    return None


class RequestProgress:
    """What the answers of a request came to so far, and whether anything more is to be expected."""

    def __init__(self, prepared: PreparedRequest) -> None:
        self.num_tokens = 0
        self.error: HttpError | None = None
        self._prepared = prepared
        self.lasts: list[Delta | None] = [None] * len(prepared.requests)
        self._num_open = len(prepared.requests)

    def note(self, index: int, deltas: list[Delta]) -> None:
        """Count what arrived of answer `index`."""
        for delta in deltas:
            self.num_tokens += delta.num_tokens
        last = deltas[-1]
        if last.finish_reason is not None and self.lasts[index] is None:
            self.lasts[index] = last
            self._num_open -= 1
            self.error = self.error or failure(last)

    @property
    def over(self) -> bool:
        """All answers ended, or one of them failed, which is the end of the others."""
        return self._num_open == 0 or self.error is not None

    @property
    def outcome(self) -> str:
        """How it ended, for the log."""
        return ",".join(sorted({last.finish_reason for last in self.lasts if last is not None and last.finish_reason}))

    def totals(self) -> Totals:
        """For usage objects."""
        spent = [last.spent for last in self.lasts if last is not None and last.spent is not None]
        cached = [answer.cached_tokens for answer in spent]
        n = self._prepared.spec.n
        of_prompts = sum(min(cached[i : i + n]) for i in range(0, len(cached), n))
        return Totals(self._prepared.prompt_tokens, of_prompts, self.num_tokens, spent, self._prepared.parsers)


class WholeAnswer:
    """Collects a request's answers; `finished` resolves when `progress` is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, prepared: PreparedRequest) -> None:
        self.finished: asyncio.Future[None] = loop.create_future()
        self.progress = RequestProgress(prepared)
        self._deltas: list[list[Delta]] = [[] for _ in prepared.requests]

    def receive(self, index: int, deltas: list[Delta]) -> None:
        """Bridge receiver of answer `index`."""
        self._deltas[index] += deltas
        self.progress.note(index, deltas)
        if self.progress.over and not self.finished.done():
            self.finished.set_result(None)

    def answers(self) -> list[Answer]:
        """In order, once `progress` is over without an error."""
        return [Answer(deltas) for deltas in self._deltas]


class StreamedAnswer:
    """Writes a request's answers to the connection as they arrive.

    The fast way: `receive` puts the bytes straight onto the request's transport, in the chunked coding that Sanic
    opened, without waking a task. When the client does not keep up, the deltas stay in `_pending` (at most MAX_UNREAD
    tokens of them) and the handler's task sends them with Sanic's `send`, which waits for the client; `stall`
    seconds of that end the stream."""

    def __init__(self, request: Request, prepared: PreparedRequest, writer: StreamWriter, stall: float) -> None:
        self._transport: Any = request.transport
        self._writer = writer
        self._stall = stall
        self._response: Any = None
        self._pending: list[tuple[int, list[Delta]]] = []
        self._unread = 0
        self._direct = self._broken = self._written = False
        self._wake = asyncio.Event()
        self.progress = RequestProgress(prepared)

    def receive(self, index: int, deltas: list[Delta]) -> None:
        """Bridge receiver of answer `index`."""
        self.progress.note(index, deltas)
        if self._direct:
            transport = self._transport
            if transport.is_closing():
                return
            if transport.get_write_buffer_size() <= HIGH_WATER:
                data = self._encode(index, deltas)
                if data:
                    self._written = True
                    transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                self._direct = False
                self._keep(index, deltas)
                self._wake.set()
        else:
            self._keep(index, deltas)
        if self.progress.over:
            self._direct = False
            self._wake.set()

    def _keep(self, index: int, deltas: list[Delta]) -> None:
        self._pending.append((index, deltas))
        self._unread += sum(delta.num_tokens + sum(len(p.top) for p in delta.logprobs) for delta in deltas)
        if self._unread > MAX_UNREAD and not self._transport.is_closing():
            log.warning("a client that does not read %d tokens of its answer is cut", self._unread)
            self._transport.abort()

    def _encode(self, index: int, deltas: list[Delta]) -> bytes:
        """What to write of these; where that fails nothing more can come, and the stream ends with an error instead of
        never."""
        if self._broken:
            return b""
        try:
            return self._writer.encode(index, deltas)
        except Exception:
            log.exception("unexpected: a piece of an answer could not be written")
            self._broken = True
            failed = failure_error(FailureKind.INTERNAL, "The server failed on this answer; its log says why.")
            self.progress.error = self.progress.error or failed
            return b""

    async def run(self, request: Request, headers: dict[str, str], head: Any = None) -> None:
        """Send header, first words and answers until `progress` is over; `close` sends the rest. `head`: a response
        that has its header already.

        Raises TimeoutError when the client reads nothing for `stall` seconds.
        """
        self._response = head or await request.respond(content_type=self._writer.content_type, headers=headers)
        await self._send(self._writer.begin(), head=True)
        while True:
            while self._pending:
                pending, self._pending, self._unread = self._pending, [], 0
                await self._send(b"".join([self._encode(index, deltas) for index, deltas in pending]))
            if self.progress.over:
                return
            self._wake.clear()
            self._direct = True
            while not self._wake.is_set():
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    self._keep_alive()

    def _keep_alive(self) -> None:
        """After a while without anything, a comment; to a client that reads."""
        data, transport = self._writer.keep_alive, self._transport
        if data and not self._written and not transport.is_closing() and not transport.get_write_buffer_size():
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        self._written = False

    async def close(self) -> None:
        """Send what follows the last token: an error, or the end."""
        if self.progress.error is not None:
            await self.fail(self.progress.error)
            return
        await self._send(self._writer.end(self.progress.totals()))
        await self._response.eof()

    async def fail(self, error: HttpError) -> None:
        """End the stream with an error that clients raise."""
        self._direct = False
        if self._response is not None:
            await self._send(self._writer.fail(error))
            await self._response.eof()

    async def _send(self, data: bytes, head: bool = False) -> None:
        """`head`: the first call, which sends the response's head with or without data."""
        if data or head:
            async with asyncio.timeout(self._stall):
                await self._response.send(data)

"""The two ways in which an answer leaves: as a stream of server-sent events, or whole."""

from __future__ import annotations

import asyncio
from typing import Any

from axpress.core.request import Delta, TokenLogprob
from sanic.request import Request

from .errors import HttpError, error_body
from .sse import DONE, ChunkWriter, error_event

HIGH_WATER = 65536
"""Bytes in a connection's write buffer above which Sanic's `send` waits; we stop writing past it at the same mark."""


def failure(last: Delta) -> HttpError | None:
    """What to tell the client when an answer ended without being finished, or None."""
    if last.finish_reason == "cancelled":
        return HttpError(503, last.error or "The server is shutting down.", code="unavailable", headers={"x-should-retry": "true"})
    if last.finish_reason == "error":
        return HttpError(500, last.error or "The card failed during this answer.", code="engine_error")
    return None


class WholeAnswer:
    """Collects an answer; `finished` resolves with its last delta."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.finished: asyncio.Future[Delta] = loop.create_future()
        self.num_tokens = 0
        self.logprobs: list[TokenLogprob] = []
        self._pieces: list[str] = []

    def receive(self, deltas: list[Delta]) -> None:
        """Bridge receiver."""
        for delta in deltas:
            self._pieces.append(delta.text)
            self.num_tokens += delta.num_tokens
            self.logprobs.extend(delta.logprobs)
        if deltas[-1].finish_reason is not None and not self.finished.done():
            self.finished.set_result(deltas[-1])

    @property
    def text(self) -> str:
        """All that arrived so far."""
        return "".join(self._pieces)


class StreamedAnswer:
    """Writes an answer's deltas to the connection as they arrive.

    The fast way: `receive` puts the bytes straight onto the request's transport, in the chunked coding that Sanic opened,
    without waking a task. When the client does not keep up, the deltas stay in `_pending` (at most max_tokens of them) and
    the handler's task sends them with Sanic's `send`, which waits for the client; `stall` seconds of that end the stream.
    """

    def __init__(self, request: Request, writer: ChunkWriter, stall: float) -> None:
        self._transport: Any = request.transport
        self._writer = writer
        self._stall = stall
        self._response: Any = None
        self._pending: list[Delta] = []
        self._direct = False
        self._wake = asyncio.Event()
        self.last: Delta | None = None
        self.num_tokens = 0

    def receive(self, deltas: list[Delta]) -> None:
        """Bridge receiver."""
        for delta in deltas:
            self.num_tokens += delta.num_tokens
        if self._direct:
            transport = self._transport
            if transport.is_closing():
                return
            if transport.get_write_buffer_size() <= HIGH_WATER:
                data = self._writer.text(deltas)
                if data:
                    transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                self._direct = False
                self._pending += deltas
                self._wake.set()
        else:
            self._pending += deltas
        if deltas[-1].finish_reason is not None:
            self.last = deltas[-1]
            self._direct = False
            self._wake.set()

    async def run(self, request: Request, headers: dict[str, str]) -> Delta:
        """Send header, role and text until the answer's last delta, which is returned; `close` sends the rest.

        Raises TimeoutError when the client reads nothing for `stall` seconds.
        """
        self._response = await request.respond(content_type="text/event-stream; charset=utf-8", headers=headers)
        await self._send(self._writer.role())
        while True:
            while self._pending:
                deltas, self._pending = self._pending, []
                await self._send(self._writer.text(deltas))
            if self.last is not None:
                return self.last
            self._wake.clear()
            self._direct = True
            await self._wake.wait()

    async def close(self, prompt_tokens: int, include_usage: bool) -> None:
        """Send what follows the last token: finish reason or error, usage, [DONE]."""
        assert self.last is not None and self.last.finish_reason is not None
        error = failure(self.last)
        if error is not None:
            await self.fail(error)
            return
        tail = self._writer.finish(self.last.finish_reason)
        if include_usage:
            tail += self._writer.usage(prompt_tokens, self.num_tokens)
        await self._send(tail + DONE)
        await self._response.eof()

    async def fail(self, error: HttpError) -> None:
        """End the stream with an error that clients raise."""
        self._direct = False
        if self._response is not None:
            await self._send(error_event(error_body(error.status, str(error), error.param, error.code)) + DONE)
            await self._response.eof()

    async def _send(self, data: bytes) -> None:
        if data:
            async with asyncio.timeout(self._stall):
                await self._response.send(data)

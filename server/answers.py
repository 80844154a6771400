"""The two ways in which an answer leaves: as a stream of server-sent events, or whole."""

from __future__ import annotations

import asyncio
from typing import Any

from sanic.request import Request

from axpress.core.request import Delta

from .errors import HttpError, error_body
from .sse import DONE, ChunkWriter, TokenBytes, choice, error_event, logprobs_content, usage

HIGH_WATER = 65536
"""Bytes in a connection's write buffer above which Sanic's `send` waits; we stop writing past it at the same mark."""


def failure(last: Delta) -> HttpError | None:
    """What to tell the client when an answer ended without being finished, or None."""
    if last.finish_reason == "cancelled":
        return HttpError(503, last.error or "The server is shutting down.", code="unavailable", headers={"x-should-retry": "true"})
    if last.finish_reason == "error":
        return HttpError(500, last.error or "The card failed during this answer.", code="engine_error")
    return None


class Tally:
    """What the choices of an answer came to so far, and whether anything more is to be expected."""

    def __init__(self, num_choices: int) -> None:
        self.num_tokens = 0
        self.lasts: list[Delta | None] = [None] * num_choices
        self.error: HttpError | None = None
        self._num_open = num_choices

    def note(self, index: int, deltas: list[Delta]) -> None:
        """Count what arrived of choice `index`."""
        for delta in deltas:
            self.num_tokens += delta.num_tokens
        last = deltas[-1]
        if last.finish_reason is not None and self.lasts[index] is None:
            self.lasts[index] = last
            self._num_open -= 1
            self.error = self.error or failure(last)

    @property
    def over(self) -> bool:
        """All choices ended, or one of them failed, which is the end of the others."""
        return self._num_open == 0 or self.error is not None

    @property
    def outcome(self) -> str:
        """How it ended, for the log."""
        return ",".join(sorted({last.finish_reason for last in self.lasts if last is not None and last.finish_reason}))

    def usage(self, prompt_tokens: int) -> dict[str, Any]:
        """OpenAI's usage object."""
        spent = [last.spent for last in self.lasts if last is not None and last.spent is not None]
        return usage(prompt_tokens, self.num_tokens, spent)


class WholeAnswer:
    """Collects an answer of `num_choices` choices; `finished` resolves when `tally` is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, num_choices: int = 1) -> None:
        self.finished: asyncio.Future[None] = loop.create_future()
        self.tally = Tally(num_choices)
        self._deltas: list[list[Delta]] = [[] for _ in range(num_choices)]

    def receive(self, index: int, deltas: list[Delta]) -> None:
        """Bridge receiver of choice `index`."""
        self._deltas[index] += deltas
        self.tally.note(index, deltas)
        if self.tally.over and not self.finished.done():
            self.finished.set_result(None)

    def choices(self, token_bytes: TokenBytes | None) -> list[dict[str, Any]]:
        """The choices in order, with log-probabilities where `token_bytes` is given."""
        made = []
        for index, (deltas, last) in enumerate(zip(self._deltas, self.tally.lasts, strict=True)):
            text = "".join([delta.text for delta in deltas])
            logprobs = None
            if token_bytes is not None:
                logprobs = logprobs_content([one for delta in deltas for one in delta.logprobs], token_bytes)
            made.append(choice(index, text, (last and last.finish_reason) or "stop", logprobs))
        return made


class StreamedAnswer:
    """Writes the deltas of an answer's choices, each with its own writer, to the connection as they arrive.

    The fast way: `receive` puts the bytes straight onto the request's transport, in the chunked coding that Sanic opened,
    without waking a task. When the client does not keep up, the deltas stay in `_pending` (at most max_tokens of them a choice)
    and the handler's task sends them with Sanic's `send`, which waits for the client; `stall` seconds of that end the stream.
    """

    def __init__(self, request: Request, writers: list[ChunkWriter], stall: float) -> None:
        self._transport: Any = request.transport
        self._writers = writers
        self._stall = stall
        self._response: Any = None
        self._pending: list[tuple[int, list[Delta]]] = []
        self._direct = False
        self._wake = asyncio.Event()
        self.tally = Tally(len(writers))

    def receive(self, index: int, deltas: list[Delta]) -> None:
        """Bridge receiver of choice `index`."""
        self.tally.note(index, deltas)
        if self._direct:
            transport = self._transport
            if transport.is_closing():
                return
            if transport.get_write_buffer_size() <= HIGH_WATER:
                data = self._encode(index, deltas)
                if data:
                    transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                self._direct = False
                self._pending.append((index, deltas))
                self._wake.set()
        else:
            self._pending.append((index, deltas))
        if self.tally.over:
            self._direct = False
            self._wake.set()

    def _encode(self, index: int, deltas: list[Delta]) -> bytes:
        """The chunks of these deltas: text, and the finish reason where the choice ends with one."""
        writer, last = self._writers[index], deltas[-1]
        data = writer.text(deltas)
        return data + writer.finish(last.finish_reason) if last.finish_reason in ("stop", "length") else data

    async def run(self, request: Request, headers: dict[str, str]) -> None:
        """Send header, roles, text and finish reasons until `tally` is over; `close` sends the rest.

        Raises TimeoutError when the client reads nothing for `stall` seconds.
        """
        self._response = await request.respond(content_type="text/event-stream; charset=utf-8", headers=headers)
        await self._send(b"".join([writer.role() for writer in self._writers]))
        while True:
            while self._pending:
                pending, self._pending = self._pending, []
                await self._send(b"".join([self._encode(index, deltas) for index, deltas in pending]))
            if self.tally.over:
                return
            self._wake.clear()
            self._direct = True
            await self._wake.wait()

    async def close(self, prompt_tokens: int, include_usage: bool) -> None:
        """Send what follows the last token: an error, or usage and [DONE]."""
        if self.tally.error is not None:
            await self.fail(self.tally.error)
            return
        tail = self._writers[0].usage(self.tally.usage(prompt_tokens)) if include_usage else b""
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

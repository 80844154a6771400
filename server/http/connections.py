"""Limits on connections that Sanic's idle timeouts do not give: a cap, a total time per request sent, no smuggling.

Sanic 25.12 (checked in its source): its request timeout restarts with each byte, it accepts `Content-Length :` as
another header (and then runs the body as a second request), NUL and bare LF in header values, and it stops reading from
a connection whose buffer is full, so that a client that leaves is not noticed."""

from __future__ import annotations

import asyncio
import re
import socket
from time import monotonic
from typing import Any

from sanic import Sanic
from sanic.exceptions import BadRequest, RequestTimeout
from sanic.http import Stage
from sanic.request import Request
from sanic.server.protocols.http_protocol import HttpProtocol

from .errors import HttpError, error_body
from .request_log import LoggedHttp

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(rb"[A-Z]{1,16} [!-~]{1,8000} HTTP/1\.[01](?:\r\n" + _TOKEN + rb":[\t -~\x80-\xff]*)*")
_FRAMING = re.compile(rb"\r\n(?:content-length:[ \t]*([^\r]*)|transfer-encoding:[ \t]*([^\r]*))", re.IGNORECASE)


def check_head(head: bytes) -> None:
    """Raise BadRequest unless a request's header block (without its final blank line) is strictly well-formed."""
    if not _HEAD.fullmatch(head):
        raise BadRequest("malformed header")
    for match in _FRAMING.finditer(head):
        length, coding = match.groups()
        if length is not None and not re.fullmatch(rb"[0-9]{1,15}[ \t]*", length):
            raise BadRequest("malformed content-length")
        if coding is not None and coding.strip().lower() != b"chunked":
            raise BadRequest("unsupported transfer-encoding")


class SafeRequest(Request):
    """A request whose stand-in for a malformed one can always be made: Sanic's own fails on the URL that it is to
    report."""

    def __init__(
        self, url_bytes: bytes, headers: Any, version: str, method: str, transport: Any, app: Sanic, **more: Any
    ) -> None:
        url = b"/" if method == "NONE" else url_bytes
        super().__init__(url, headers, version, method, transport, app, **more)


class LimitedProtocol(HttpProtocol):
    """Sanic's HTTP/1.1 protocol with axpress's limits. They come from `app.ctx.service.settings`."""

    __slots__ = ("_reading", "_reading_since", "_refused")
    HTTP_CLASS = LoggedHttp

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._refused = False
        self._reading: Any = None
        self._reading_since: float | None = None

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or answer 503 at once when there are too many."""
        limit = self.app.ctx.service.settings.max_connections
        open_now: set[LimitedProtocol] = self.app.ctx.connections
        if len(open_now) >= limit and not _make_room(open_now):
            self._refused = True
            text = f"This server has its {limit} connections in use; try again."
            _refuse(transport, b"503 Service Unavailable", HttpError(503, text, code="too_many_connections"), b"1")
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != getattr(socket, "AF_UNIX", -1):
            _tune(sock)
        open_now.add(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes; cut a client that sends a flood while its answer is on the way."""
        if self._refused:
            return
        http: Any = self.http
        if data[0] == TLS_HANDSHAKE and not self.recv_buffer and (http is None or http.stage is Stage.IDLE):
            self._refuse_tls()
            return
        super().data_received(data)
        http = self.http
        answering = http is not None and http.stage in (Stage.HANDLER, Stage.RESPONSE) and not http.request_body
        if answering and len(self.recv_buffer) >= self.app.config.REQUEST_BUFFER_SIZE:
            self.abort()

    def _refuse_tls(self) -> None:
        """At once and in plain HTTP, which TLS clients report as such; else they would wait until the time for a header
        is over."""
        _refuse(
            self.transport,
            b"400 Bad Request",
            HttpError(400, "This server speaks http, not https.", code="bad_request"),
        )

    def eof_received(self) -> bool:
        """A client that sends no more is gone, or only done with sending: TCP does not tell. What it asked for is
        answered where that is a matter of a moment; whoever wants more is told so, and nobody computes for a client
        that is gone."""
        http: Any = self.http
        if self._refused or http is None or not (self.recv_buffer or http.stage in (Stage.REQUEST, Stage.HANDLER)):
            return False
        http.keep_alive = False
        asyncio.get_running_loop().call_later(HALF_CLOSED_SECONDS, self._end_half_closed)
        return True

    def _end_half_closed(self) -> None:
        http: Any = self.http
        if http is not None and http.stage is Stage.HANDLER and self._task is not None:
            http.exception = HttpError(400, HALF_CLOSED, code="half_closed")
            self._task.cancel()  # answers with it, then closes
        elif self.transport is not None and not self.transport.is_closing():
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Sanic cancels the handler here; a refused connection has none."""
        if not self._refused:
            self.app.ctx.connections.discard(self)
            super().connection_lost(exc)

    def cut_if_slow(self, now: float, limit: float) -> None:
        """End the connection when one request has been on its way for more than `limit` seconds."""
        http: Any = self.http
        if http is None or not (http.stage is Stage.REQUEST or http.request_body):
            self._reading_since = None
            return
        current = http.request  # None while its header is read
        if self._reading_since is None or (self._reading is not None and current is not self._reading):
            self._reading_since = now
        self._reading = current
        if now - self._reading_since > limit:
            self._cut(http)

    def _cut(self, http: Any) -> None:
        if http.stage is Stage.REQUEST and self._task is not None:
            http.exception = RequestTimeout("slow header")
            self._task.cancel()  # what Sanic's own timeout does: answers 408, then closes
        else:
            self.abort()


def _make_room(connections: set[LimitedProtocol]) -> bool:
    """Closes the connection that has sent no request for longest, if there is one: whoever only keeps connections open
    shuts nobody out."""
    idle = [c for c in connections if c.http is None or c.http.stage is Stage.IDLE or c.http.request is None]
    if not idle:
        return False
    oldest = min(idle, key=lambda c: c._time or 0.0)
    connections.discard(oldest)
    oldest.abort()
    return True


def _refuse(transport: Any, status: bytes, error: HttpError, retry_after: bytes = b"") -> None:
    """Answer a connection that no request was read from, and close it."""
    body = error_body(error) + b"\n"
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n" % (
        status,
        len(body),
    )
    transport.write(head + (b"retry-after: %b\r\n" % retry_after if retry_after else b"") + b"\r\n" + body)
    transport.close()


HALF_CLOSED_SECONDS = 0.1
HALF_CLOSED = (
    "This client ended its side of the connection before its answer was there, which looks as if it had left; keep it"
    " open until then."
)
TLS_HANDSHAKE = 0x16
"""The first byte of a client that wants to speak TLS; no HTTP method begins with it."""
SEND_BUFFER = 1 << 18
"""Bytes; the kernel's own choice grows to several megabytes for each client that does not read."""


def _tune(sock: Any) -> None:
    """Bound what the kernel holds for a client, and notice within about a minute one that vanished without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def watch_slow_senders(app: Sanic) -> None:
    """Runs for the server's life and cuts connections that take too long to send a request.

    Handlers that read a body answer 408 themselves; this comes a little later, for all else.
    """
    limit = app.ctx.service.settings.read_timeout
    while True:
        await asyncio.sleep(min(1.0, limit / 4))
        now = monotonic()
        for connection in list(app.ctx.connections):
            connection.cut_if_slow(now, limit * 1.1)

"""One line for every request, refused and malformed ones included: status, path, code, key, id; never what was said."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from sanic.exceptions import BadRequest
from sanic.http import Http, Stage
from sanic.http.http1 import HTTP_CONTINUE
from sanic.request import Request

log = logging.getLogger("axpress.request")

MONITORS = frozenset(("/livez", "/readyz", "/health", "/live", "/metrics"))
"""What programs ask every few seconds: told at debug level only."""
MAX_CHUNK_HEAD = 64
_CHUNK_HEAD = re.compile(rb"\r\n[0-9A-Fa-f]{1,8}(?:[\t ]*;[\t -~]*)?")
CLIENT_LEFT = 499
"""In the log, for a client that was gone before its answer began."""


def finish(request: Request, status: int | None = None) -> None:
    """Write the line of a request that is over, once. `status`: where no response was made."""
    ctx: Any = request.ctx
    if getattr(ctx, "told", False):
        return
    ctx.told = True
    stream: Any = request.stream
    response = getattr(stream, "response", None)
    status = response.status if response is not None else (status or 500)
    key = getattr(ctx, "key", None)
    begun = getattr(ctx, "begun", None)
    path = route_of(request)
    fields: dict[str, Any] = {
        "method": request.method,
        "path": path,
        "status": status,
        "code": getattr(ctx, "code", None),
        "from": request.ip,
        "key": None if key is None else key.name,
        "request_id": getattr(ctx, "request_id", None),
        "seconds": None if begun is None else round(monotonic() - begun, 3),
        **getattr(ctx, "facts", {}),
    }
    route = path if getattr(request, "route", None) else "none"
    request.app.ctx.service.answers.responses[route, status] += 1
    level = logging.WARNING if status >= 500 else logging.INFO
    if status in (200, 503) and path in MONITORS:  # a change of the state has a line of its own
        level = logging.DEBUG
    repeat = (status, fields["code"]) if status >= 400 else None
    log.log(level, "%s", _sentence(fields), extra={"fields": fields, "repeat": repeat})


def route_of(request: Request) -> str:
    """The path as the route table has it. Of one that is not there only words that the table knows: what somebody put
    into it may be a key, or what they asked."""
    if route := getattr(request, "route", None):
        return f"/{route.path}"
    words = {word for route in request.app.router.routes for word in route.path.split("/")}
    return "/".join([word if word in words else "*" for word in request.path.split("/")[:8]])


def _sentence(fields: dict[str, Any]) -> str:
    """`POST /v1/models 404 not_found from 127.0.0.1 seconds=0.001 request_id=...`"""
    words = [fields["method"], fields["path"], str(fields["status"]), fields["code"], f"from {fields['from']}"]
    rest = [f"{name}={value}" for name, value in list(fields.items())[5:] if value is not None]
    return " ".join([*(word for word in words if word), *rest])


async def logged(handle: Callable[[Request], Awaitable[None]], request: Request) -> None:
    """Handle a request; its line is written when its answer is out."""
    request.ctx.begun = monotonic()
    try:
        await handle(request)
    except BaseException:
        stream: Any = request.stream
        if stream is None or stream.protocol.transport is None or stream.protocol.conn_info.lost:
            finish(request, CLIENT_LEFT)
        raise  # else Sanic answers, see LoggedHttp
    finish(request)


class LoggedHttp(Http):
    """Sanic's HTTP, which logs also what is answered before a handler was asked."""

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """Begin an answer. A client that waits for `100 Continue` keeps its body where nobody wants it."""
        if self.expecting_continue:
            self.expecting_continue, self.keep_alive, self.request_body = False, False, None
        await super().http1_response_header(data, end_stream)

    async def read(self) -> bytes | None:
        """Some bytes of the body. Of chunks, only those framed to the letter: what a proxy before us reads otherwise
        could hide a request."""
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(HTTP_CONTINUE)
        if self.request_body == "chunked" and self.request_bytes_left == 0:
            buffer = self.recv_buffer
            while (end := buffer.find(b"\r\n", 3)) < 0 and len(buffer) <= MAX_CHUNK_HEAD:
                await self._receive_more()
            if end < 0 or not _CHUNK_HEAD.fullmatch(buffer, 0, end):
                self.keep_alive = False
                raise BadRequest("Bad chunked encoding")
        return await super().read()

    async def error_response(self, exception: Exception) -> None:
        """Answer an exception that no handler saw."""
        silent = self.stage not in (Stage.REQUEST, Stage.HANDLER)
        await super().error_response(exception)
        if self.request is not None and not (silent and self.response is None):
            finish(self.request)

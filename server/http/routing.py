"""Rows of the route table: what a path takes, what it answers and who answers it; and how they become the app's routes.

Each room has its rows beside its handlers (routes.py); server/docs/routes.py joins them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import orjson
from sanic import Sanic
from sanic.request import Request
from sanic.response import HTTPResponse

from .errors import OPENAI_ERRORS, ErrorShape
from .request_body import answer_unread

Method = Literal["GET", "HEAD", "POST", "DELETE"]
Handler = Callable[..., Coroutine[Any, Any, HTTPResponse | None]]
"""Called with the request, and the path's parameters by name. None: it has answered already, as streams do."""
EVENTS: Literal["text/event-stream"] = "text/event-stream"
LINES: Literal["application/x-ndjson"] = "application/x-ndjson"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer in pieces: server-sent events, whose data is one of `event` each, or lines of JSON. `done`: how the
    last one reads."""

    event: Any
    content_type: Literal["text/event-stream", "application/x-ndjson"] = EVENTS
    done: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path and a method; `path` as OpenAPI writes it (/v1/models/{model}).

    `request`: the class that reads its JSON body. `reply`: type of the JSON in a 200; or `content`: the content types
    of a 200 that is no JSON. `stream`: what comes where the request asks for a stream, or always where there is no
    `reply`. `others`: type of the JSON in answers with these statuses, where it is no error. `not_found`: what a 404
    means, for routes that have one. `open`: answered without an API key."""

    method: Method
    path: str
    handler: Handler
    group: str
    summary: str
    request: type[Any] | None = None
    reply: Any = None
    content: tuple[str, ...] = ()
    stream: Stream | None = None
    error: ErrorShape = OPENAI_ERRORS
    others: tuple[tuple[int, Any], ...] = ()
    not_found: str | None = None
    open: bool = False
    slashes: bool = False
    """The path's parameter may have slashes in it."""
    busy: bool = False
    """May answer 429 although it takes no body."""
    refuses: int = 0
    """The status of all its answers, where it is there only to tell clients of other servers why something cannot
    be."""
    embeds: bool = False
    """For embedding models: one that generates text refuses it with 400."""
    reranks: bool = False
    """For rerankers: other models refuse it with 400."""
    changes: bool = False
    """For servers whose models come and go, and keys that may change them: others refuse it with 400 and 403."""
    query: tuple[str, ...] = ()
    """Parameters that clients send."""
    example: Any = None
    """A request that works on every server, or with `embeds` or `reranks` on those of such a model."""
    note: str = ""
    """More than the summary, for whoever reads on."""


def json_response(document: object, status: int = 200, headers: dict[str, str] | None = None) -> HTTPResponse:
    """A document as JSON."""
    return HTTPResponse(orjson.dumps(document), status, headers=headers, content_type=JSON)


def operation_id(route: Route) -> str:
    """Unique: what client generators call the operation, and Sanic the route."""
    words = [word.strip("{}") for word in route.path.replace("-", "_").replace(".", "_").split("/") if word]
    return "_".join([route.method.lower(), *words])


def register(app: Sanic, routes: Iterable[Route]) -> None:
    """Make these the app's routes. Bodies of reads are not looked at; all others are read by their handlers."""
    by_handler: dict[tuple[str, Handler], list[Route]] = {}  # Sanic wants methods that share a handler together
    for route in routes:
        by_handler.setdefault((route.path, route.handler), []).append(route)
    for (path, handler), rows in by_handler.items():
        first, reads = rows[0], all(route.method in ("GET", "HEAD") for route in rows)
        app.add_route(
            handler if reads else _answering_errors(handler),
            path.replace("{", "<").replace("}", ":path>" if first.slashes else ":str>"),
            methods=[route.method for route in rows],
            name=operation_id(first),
            stream=not reads,
            ignore_body=reads,
            ctx_open=first.open,
        )


def _answering_errors(handler: Handler) -> Handler:
    """The handler, whose errors are answered also while the body is still on its way."""

    @wraps(handler)
    async def answer(request: Request, **path: str) -> HTTPResponse | None:
        try:
            return await handler(request, **path)
        except Exception as exc:
            response = request.app.error_handler.default(request, exc)
            if not request.stream.request_body:  # type: ignore[union-attr]
                return response
            await answer_unread(request, response)
            return None

    return answer

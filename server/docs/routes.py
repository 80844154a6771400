"""The route table: every route of the server, what it takes and what it answers. The app's routes, the OpenAPI
document, docs/compat.md and the tests are made from it.

A new room is a line in ROOMS."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import orjson
from sanic.request import Request
from sanic.response import HTTPResponse

from ..anthropic.routes import ROUTES as ANTHROPIC
from ..http.routing import JSON, Route
from ..monitor.routes import ROUTES as MONITOR
from ..ollama.routes import ROUTES as OLLAMA
from ..openai.routes import ROUTES as OPENAI
from ..page import send_file
from ..page.routes import ROUTES as PAGE
from ..serving.handler import in_thread
from .openapi import document


async def get_document(request: Request) -> HTTPResponse:
    """The OpenAPI document; made when somebody asks for it first, which takes a moment."""
    body = await in_thread(request.app.ctx.service, encoded)
    return HTTPResponse(body, headers={"cache-control": "no-cache"}, content_type=JSON)


async def get_docs(request: Request) -> HTTPResponse:
    """The page that shows it."""
    return send_file(request, "docs.html")


@cache
def encoded() -> bytes:
    """The document as JSON."""
    return orjson.dumps(document(ROUTES))


DOCS: tuple[Route, ...] = (
    Route(
        method="GET", path="/openapi.json", handler=get_document, group="Server", summary="This document",
        reply=dict[str, Any], open=True,
    ),
    Route(
        method="GET", path="/docs", handler=get_docs, group="Pages", summary="This document, for people",
        content=("text/html",), open=True,
    ),
)  # fmt: skip

ROOMS: tuple[tuple[Route, ...], ...] = (
    OPENAI,
    OLLAMA,
    ANTHROPIC,
    MONITOR,
    DOCS,
    PAGE,
)  # fmt: skip


def _as_head(route: Route) -> Route:
    """For monitors: every GET is answered to HEAD too."""
    return replace(route, method="HEAD", summary="As GET, without the body")


_TABLE = tuple(route for room in ROOMS for route in room)
ROUTES: tuple[Route, ...] = (*_TABLE, *(_as_head(route) for route in _TABLE if route.method == "GET"))

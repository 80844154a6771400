"""The page's rows of the route table."""

from __future__ import annotations

from sanic.request import Request
from sanic.response import HTTPResponse

from ..http.routing import Route
from . import send_file

FILES = ("text/html", "text/css", "text/javascript", "image/svg+xml", "image/png", "application/manifest+json")


async def get_index(request: Request) -> HTTPResponse:
    """The page."""
    return send_file(request, "index.html")


async def get_file(request: Request, name: str) -> HTTPResponse:
    """A file of the page."""
    return send_file(request, name)


async def get_library(request: Request, name: str) -> HTTPResponse:
    """A library of the page."""
    return send_file(request, f"vendor/{name}")


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET", path="/", handler=get_index, group="Pages", summary="A page to chat and to watch the card",
        content=("text/html",), open=True,
    ),
    Route(
        method="GET", path="/page/{name}", handler=get_file, group="Pages", summary="A file of the page",
        content=FILES, not_found="There is no such file.", open=True,
    ),
    Route(
        method="GET", path="/page/vendor/{name}", handler=get_library, group="Pages", summary="A library of the page",
        content=("text/javascript", "text/css", "font/woff2"), not_found="There is no such file.", open=True,
    ),
)  # fmt: skip

"""The monitors' rows of the route table."""

from __future__ import annotations

from ..http.routing import Route, Stream
from .health import get_health
from .live import get_live, stream_live
from .replies import Health, Live

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET", path="/health", handler=get_health, group="Server", summary="Whether a token can be had",
        reply=Health, others=((503, Health),), open=True,
    ),
    Route(
        method="GET", path="/live", handler=get_live, group="Server", summary="What the card is doing", reply=Live
    ),
    Route(
        method="GET", path="/live/stream", handler=stream_live, group="Server",
        summary="The same again and again, while it changes", stream=Stream(Live), busy=True,
    ),
)  # fmt: skip

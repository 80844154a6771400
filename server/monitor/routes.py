"""The monitors' rows of the route table."""

from __future__ import annotations

from typing import Any

from ..http.routing import Route, Stream
from .health import get_health, get_livez, get_readyz
from .live import get_live, stream_live
from .metrics import get_metrics
from .replies import Health, Live, Status
from .report import get_report

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET", path="/livez", handler=get_livez, group="Server", summary="Whether the process answers",
        reply=Status, open=True,
    ),
    Route(
        method="GET", path="/readyz", handler=get_readyz, group="Server", summary="Whether a token can be had now",
        reply=Status, others=((503, Status),), open=True,
    ),
    Route(
        method="GET", path="/metrics", handler=get_metrics, group="Server", summary="For Prometheus",
        content=("text/plain",),
    ),
    Route(
        method="GET", path="/health", handler=get_health, group="Server", summary="Whether a token can be had",
        reply=Health, others=((503, Health),), open=True,
    ),
    Route(
        method="GET", path="/report", handler=get_report, group="Server",
        summary="For an issue: settings, state, counters, latest events; nothing private", reply=dict[str, Any],
    ),
    Route(
        method="GET", path="/live", handler=get_live, group="Server", summary="What the card is doing", reply=Live
    ),
    Route(
        method="GET", path="/live/stream", handler=stream_live, group="Server",
        summary="The same again and again, while it changes", stream=Stream(Live), busy=True,
    ),
)  # fmt: skip

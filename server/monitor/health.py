"""GET /livez, /readyz and /health: whether the process lives, whether a token can be had, and what is the matter."""

from __future__ import annotations

from sanic.request import Request
from sanic.response import HTTPResponse

from ..http.access import is_known
from ..http.routing import json_response
from ..serving.engine_service import Service

_FRESH = {"cache-control": "no-store"}


async def get_livez(request: Request) -> HTTPResponse:
    """200 as long as the process answers, whatever the card does: to end it would not help a card."""
    return json_response({"status": "alive"}, 200, _FRESH)


async def get_readyz(request: Request) -> HTTPResponse:
    """200 when a token can be had: by a pass not long ago, else one token is asked for now; 503 when not."""
    service: Service = request.app.ctx.service
    alive = await request.app.ctx.canary.alive()
    status = service.condition()[0]
    if not alive and status == "ready":
        status = "stalled"
    return json_response({"status": status}, 200 if alive else 503, _FRESH)


async def get_health(request: Request) -> HTTPResponse:
    """200 when a token can be had, or is waited for since a moment ago, while the card is brought back; else 503 with
    the reason. Says which device and model, and whether it is emulated.

    Where keys are needed, whoever has none learns only the status: enough for a load balancer, nothing of what runs
    here for whom."""
    service: Service = request.app.ctx.service
    status, body = service.health()
    if not is_known(request):
        body = {"status": body["status"]}
    return json_response(body, status, _FRESH)

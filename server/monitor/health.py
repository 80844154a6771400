"""GET /health: whether a token can be had."""

from __future__ import annotations

from sanic.request import Request
from sanic.response import HTTPResponse

from ..http.access import is_known
from ..http.routing import json_response
from ..serving.engine_service import Service


async def get_health(request: Request) -> HTTPResponse:
    """200 when a token can be had, else 503 with the reason; says which device and model, and whether it is emulated.

    Where keys are needed, whoever has none learns only the status: enough for a load balancer, nothing of what runs
    here for whom."""
    service: Service = request.app.ctx.service
    status, body = service.health()
    if not is_known(request):
        body = {"status": body["status"]}
    return json_response(body, status, {"cache-control": "no-store"})

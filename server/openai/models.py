"""GET /v1/models: OpenAI's list of models, which has the one that is served."""

from __future__ import annotations

from urllib.parse import unquote

from sanic.request import Request
from sanic.response import HTTPResponse

from ..http.errors import HttpError
from ..http.routing import json_response
from ..serving.engine_service import Service


def _card(service: Service) -> dict[str, object]:
    context = service.ready().limits.context_length
    created = int(service.created)
    card = {"id": service.served_name, "object": "model", "created": created, "owned_by": "axpress"}
    return {**card, "max_model_len": context}  # vLLM's word; clients that show how full a context is look for it


async def list_models(request: Request) -> HTTPResponse:
    """Raises EngineClosed while there is none: OpenAI's clients come back after a 503, but take an empty list for an
    answer, and some keep it."""
    service: Service = request.app.ctx.service
    return json_response({"object": "list", "data": [_card(service)]})


async def get_model(request: Request, name: str) -> HTTPResponse:
    """One model by its name (which may contain slashes)."""
    service: Service = request.app.ctx.service
    limits, name = service.ready().limits, unquote(name)
    if not name:
        text = "This path ends with a model's name, or without the slash."
        raise HttpError(404, text, param="model", code="model_not_found")
    limits.names.check(name)
    return json_response(_card(service))

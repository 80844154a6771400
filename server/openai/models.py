"""GET /v1/models: OpenAI's list of models, which has the one that is served."""

from __future__ import annotations

from urllib.parse import unquote

from sanic.request import Request
from sanic.response import HTTPResponse

from ..http.errors import HttpError
from ..http.routing import json_response
from ..serving.engine_service import Service


def _card(service: Service, name: str, context: int | None, eyes: bool) -> dict[str, object]:
    created = int(service.created)
    card: dict[str, object] = {"id": name, "object": "model", "created": created, "owned_by": "axpress"}
    if eyes:
        card["input_modalities"] = ["text", "image"]  # OpenRouter's word
    # vLLM's word; clients that show how full a context is look for it
    return card if context is None else {**card, "max_model_len": context}


async def list_models(request: Request) -> HTTPResponse:
    """Raises EngineClosed while there is none: OpenAI's clients come back after a 503, but take an empty list for an
    answer, and some keep it."""
    service: Service = request.app.ctx.service
    models: list[tuple[str, int | None, bool]]
    if service.pool is None:
        models = [(service.served_name, service.ready().limits.context_length, service.has_eyes)]
    else:
        service.check_open()
        models = [(model.name, model.context_length, model.has_eyes) for model in service.pool.models]
    return json_response({"object": "list", "data": [_card(service, *facts) for facts in models]})


async def get_model(request: Request, name: str) -> HTTPResponse:
    """One model by its name (which may contain slashes)."""
    service: Service = request.app.ctx.service
    if service.pool is None:
        limits = service.ready().limits
    else:
        service.check_open()
    name = unquote(name)
    if not name:
        text = "This path ends with a model's name, or without the slash."
        raise HttpError(404, text, param="model", code="model_not_found")
    if service.pool is not None:
        model = service.pool.find(name)
        return json_response(_card(service, model.name, model.context_length, model.has_eyes))
    limits.names.check(name)
    return json_response(_card(service, service.served_name, limits.context_length, service.has_eyes))

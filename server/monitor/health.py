"""GET /health and GET /v1/models."""

from __future__ import annotations

from urllib.parse import unquote

import orjson
from sanic import Blueprint
from sanic.request import Request
from sanic.response import HTTPResponse

from ..docs.routes import reads
from ..http.access import is_known
from ..http.errors import HttpError
from ..serving.engine_service import Service
from ..serving.input_processor import check_model

health = Blueprint("health")


def _json(document: object, status: int = 200, headers: dict[str, str] | None = None) -> HTTPResponse:
    return HTTPResponse(orjson.dumps(document), status, headers=headers, content_type="application/json")


@reads(health, "/health")
async def get_health(request: Request) -> HTTPResponse:
    """200 when a token can be had, else 503 with the reason; says which device and model, and whether it is emulated.

    Where keys are needed, whoever has none learns only the status: enough for a load balancer, nothing of what runs
    here for whom."""
    service: Service = request.app.ctx.service
    status, body = service.health()
    if not is_known(request):
        body = {"status": body["status"]}
    return _json(body, status, {"cache-control": "no-store"})


def _card(service: Service) -> dict[str, object]:
    created = int(service.created)
    return {"id": service.served_name, "object": "model", "created": created, "owned_by": "axpress"}


@reads(health, "/v1/models")
async def list_models(request: Request) -> HTTPResponse:
    """The one model that is served."""
    return model_list(request)


def model_list(request: Request) -> HTTPResponse:
    """OpenAI's list of models. Raises EngineClosed while there is none: OpenAI's clients come back after a 503, but
    take an empty list for an answer, and some keep it."""
    service: Service = request.app.ctx.service
    service.ready()
    return _json({"object": "list", "data": [_card(service)]})


@reads(health, "/v1/models/<name:path>")
async def get_model(request: Request, name: str) -> HTTPResponse:
    """One model by its name (which may contain slashes)."""
    service: Service = request.app.ctx.service
    limits, name = service.ready().limits, unquote(name)
    if not name:
        raise HttpError(
            404, "This path ends with a model's name, or without the slash.", param="model", code="model_not_found"
        )
    check_model(name, limits)
    return _json(_card(service))

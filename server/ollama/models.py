"""What Ollama's API shows of its models, and what it does to them: here there is one, and it stays as it is."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

from sanic.request import Request
from sanic.response import HTTPResponse

from .. import version
from ..http.errors import HttpError
from ..http.request_body import parse_json
from ..http.routing import json_response
from ..serving.engine_service import Service
from ..serving.handler import in_thread, take_body
from ..serving.served_model import ServedModel
from .requests import OllamaShowRequest
from .stream import timestamp

OLLAMA_VERSION = "0.12.11"
"""The newest version of Ollama whose chat, generate and show we speak; clients look at it before they use what came
late."""
NEVER = "2200-01-01T00:00:00Z"
"""When the model leaves the card, for clients that want a date which every calendar can hold."""


async def get_version(request: Request) -> HTTPResponse:
    """Ollama's version, and after a dash who speaks it: so that it can be read as a version, and nobody is deceived."""
    return json_response({"version": f"{OLLAMA_VERSION}-axpress" + (f".{version()}" if version() != "unknown" else "")})


async def list_tags(request: Request) -> HTTPResponse:
    """The one model that is served; 503 while it is loading."""
    service: Service = request.app.ctx.service
    served = service.ready()
    return json_response({"models": [{**_model(served), "modified_at": _modified(served)}]})


async def list_loaded(request: Request) -> HTTPResponse:
    """The same: it is on the card, and stays there."""
    service: Service = request.app.ctx.service
    served = service.served
    if served is None:
        return json_response({"models": []})
    package = served.engine.package
    loaded = {"size_vram": package.device_bytes, "context_length": served.limits.context_length, "expires_at": NEVER}
    return json_response({"models": [{**_model(served), **loaded}]})


async def show(request: Request) -> HTTPResponse:
    """What is known of the model."""
    service: Service = request.app.ctx.service
    body = await take_body(request, any_content_type=True)
    return json_response(await in_thread(service, _show, body, service.ready()))


def _show(body: bytes, served: ServedModel) -> dict[str, Any]:
    request = OllamaShowRequest.read(parse_json(body))
    served.limits.names.check(request.model or request.name or "")
    return {
        "modified_at": _modified(served),
        "details": _details(served),
        "parameters": _parameters(served),
        "model_info": _info(served),
        "capabilities": capabilities(served),
    }


def no_changes() -> HttpError:
    """What whoever wants other models is told."""
    text = (
        "axpress serves the one model that it was started with: models are not pulled, pushed, made, copied or deleted"
        " here."
    )
    return HttpError(400, text, code="unsupported")


def _model(served: ServedModel) -> dict[str, Any]:
    name = tagged(served.name)
    return {
        "name": name,
        "model": name,
        "size": served.files[0],
        "digest": hashlib.sha256(served.fingerprint.encode()).hexdigest(),
        "details": _details(served),
    }


def tagged(name: str) -> str:
    """A model's name as Ollama lists it: with a tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _family(served: ServedModel) -> str:
    return re.sub("[^a-z0-9]", "", (served.engine.package.tokenizer_type or "").lower()) or "unknown"


def _details(served: ServedModel) -> dict[str, Any]:
    size = re.search(r"(?<![A-Za-z0-9.])\d+(?:\.\d+)?[BM](?![A-Za-z0-9])", served.engine.info.model, re.IGNORECASE)
    return {
        "parent_model": "",
        "format": "axmodel",
        "family": _family(served),
        "families": [_family(served)],
        "parameter_size": size[0].upper() if size else "",
        "quantization_level": "",
    }


def _info(served: ServedModel) -> dict[str, Any]:
    """Under the names that clients look for."""
    info, family, hidden = served.engine.info, _family(served), served.engine.package.hidden_size
    return {
        "general.architecture": family,
        "general.basename": info.model,
        f"{family}.context_length": served.limits.context_length,
        f"{family}.block_count": info.num_layers,
        f"{family}.vocab_size": info.vocab_size,
        **({f"{family}.embedding_length": hidden} if hidden else {}),
    }


def _parameters(served: ServedModel) -> str:
    """The model's own sampling defaults, in the lines of a model file."""
    defaults = served.limits.defaults
    window = defaults.penalty_window or -1
    parameters = {
        "temperature": defaults.temperature,
        "top_k": defaults.top_k,
        "top_p": defaults.top_p,
        "min_p": defaults.min_p,
        "repeat_penalty": defaults.repetition_penalty,
        "repeat_last_n": window,
    }
    return "\n".join(f"{name:<30} {value:g}" for name, value in parameters.items())


def _modified(served: ServedModel) -> str:
    return timestamp(datetime.fromtimestamp(served.files[1], UTC))


def capabilities(served: ServedModel) -> list[str]:
    """What the model can do here. Whatever can chat can be told of tools."""
    if served.engine.info.embedding_size:
        return ["embedding"]
    can = {
        "completion": True,
        "tools": served.engine.text.can_render,
        "thinking": served.chat_format.thinking != "never",
    }
    return [name for name, has in can.items() if has]

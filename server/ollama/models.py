"""What Ollama's API shows of its models: those that can be asked for, and those that are on the card."""

from __future__ import annotations

import hashlib
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.errors import AxpressError

from .. import version
from ..http.errors import HttpError
from ..http.request_body import parse_json
from ..http.routing import json_response
from ..serving.chat_format import ChatFormat, chat_format_of
from ..serving.engine_service import Service
from ..serving.handler import in_thread, take_body
from ..serving.hosted_model import HostedModel
from ..serving.model_pool import ModelPool
from ..serving.served_model import ServedModel, files_of
from .requests import OllamaShowRequest
from .stream import timestamp

if TYPE_CHECKING:
    from axpress.core.model_files.model_package import ModelPackage

OLLAMA_VERSION = "0.12.11"
"""The newest version of Ollama whose chat, generate and show we speak; clients look at it before they use what came
late."""
NEVER = "2200-01-01T00:00:00Z"
"""When a model that stays leaves the card, for clients that want a date which every calendar can hold."""
EMBEDS = ["embedding"]
FAR = 1e9
"""Seconds beyond which that is so."""


async def get_version(request: Request) -> HTTPResponse:
    """Ollama's version, and after a dash who speaks it: so that it can be read as a version, and nobody is deceived."""
    return json_response({"version": f"{OLLAMA_VERSION}-axpress" + (f".{version()}" if version() != "unknown" else "")})


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as it is listed; `title`: where its size may be read; `files` as in ServedModel."""

    name: str
    title: str
    package: ModelPackage
    files: tuple[int, float]
    digest_of: str

    @classmethod
    def of(cls, model: ServedModel | HostedModel) -> Listed:
        """A served model; or one of several, whose digest is the same whether it is on the card or not."""
        if isinstance(model, ServedModel):
            return cls(model.name, model.engine.info.model, model.engine.package, model.files, model.fingerprint)
        files = model.served.files if model.served is not None else files_of(model.package)
        return cls(model.name, model.package.name, model.package, files, f"{model.package.name} {files}")


async def list_tags(request: Request) -> HTTPResponse:
    """The models that can be asked for; 503 while they are loading."""
    service: Service = request.app.ctx.service
    models: list[Listed]
    if service.pool is None:
        models = [Listed.of(service.ready())]
    else:
        service.check_open()
        models = await in_thread(service, _listed, service.pool)
    return json_response({"models": [{**_model(model), "modified_at": _modified(model)} for model in models]})


def _listed(pool: ModelPool) -> list[Listed]:
    """All but those whose files are gone: somebody may remove them while the server runs."""
    found = []
    for model in list(pool.models):
        with suppress(OSError):
            found.append(Listed.of(model))
    return found


async def list_loaded(request: Request) -> HTTPResponse:
    """Those on the card, and when they leave it."""
    service: Service = request.app.ctx.service
    if service.pool is not None:
        return json_response({"models": [_loaded(Listed.of(model), model) for model in service.pool.loaded]})
    served = service.served
    return json_response({"models": [] if served is None else [_loaded(Listed.of(served), served)]})


def _loaded(listed: Listed, model: ServedModel | HostedModel) -> dict[str, Any]:
    served = model if isinstance(model, ServedModel) else model.served
    assert served is not None
    left = model.expires_at - monotonic() if isinstance(model, HostedModel) else math.inf
    expires = NEVER if left > FAR else timestamp(datetime.now(UTC) + timedelta(seconds=max(left, 0.0)))
    loaded = {"size_vram": listed.package.device_bytes, "context_length": served.limits.context_length}
    return {**_model(listed), **loaded, "expires_at": expires}


async def show(request: Request) -> HTTPResponse:
    """What is known of the model."""
    service: Service = request.app.ctx.service
    body = await take_body(request, any_content_type=True)
    if service.pool is not None:
        return json_response(await in_thread(service, _show_named, body, service.pool))
    return json_response(await in_thread(service, _show, body, service.ready()))


def _show(body: bytes, served: ServedModel) -> dict[str, Any]:
    request = OllamaShowRequest.read(parse_json(body))
    served.limits.names.check(request.model or request.name or "")
    return _shown(served, Listed.of(served))


def _shown(served: ServedModel, listed: Listed) -> dict[str, Any]:
    return {
        "modified_at": _modified(listed),
        "details": _details(listed),
        "parameters": _parameters(served),
        "model_info": _info(served),
        "capabilities": EMBEDS
        if served.engine.info.embedding_size
        else _capabilities(served.chat_format, served.eyes is not None),
    }


def _show_named(body: bytes, pool: ModelPool) -> dict[str, Any]:
    """One that is not on the card is not loaded for this: its files tell nearly as much."""
    request = OllamaShowRequest.read(parse_json(body))
    model = pool.find(request.model or request.name or "")
    try:
        listed, package = Listed.of(model), model.package
    except OSError as error:
        text = f"The files of model '{model.name}' are gone ({error.strerror}): {error.filename}"
        raise HttpError(404, text, param="model", code="model_not_found") from None
    if model.served is not None:
        return _shown(model.served, listed)
    family = _family(package)
    sizes = {"context_length": package.rows, "block_count": package.num_layers, "vocab_size": package.vocab_size,
             "embedding_length": package.hidden_size}  # fmt: skip
    info = {f"{family}.{name}": value for name, value in sizes.items() if value}
    return {
        "modified_at": _modified(listed),
        "details": _details(listed),
        "parameters": "",
        "model_info": {"general.architecture": family, "general.basename": package.name, **info},
        "capabilities": _capabilities_on_disk(model),
    }


def no_changes() -> HttpError:
    """What whoever wants other models is told."""
    text = "models are not pushed, made or copied here; with --models, a key with that right pulls and deletes them."
    return HttpError(400, text, code="unsupported")


def _model(listed: Listed) -> dict[str, Any]:
    name = tagged(listed.name)
    return {
        "name": name,
        "model": name,
        "size": listed.files[0],
        "digest": hashlib.sha256(listed.digest_of.encode()).hexdigest(),
        "details": _details(listed),
    }


def tagged(name: str) -> str:
    """A model's name as Ollama lists it: with a tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _family(package: ModelPackage) -> str:
    return re.sub("[^a-z0-9]", "", (package.tokenizer_type or "").lower()) or "unknown"


def _details(listed: Listed) -> dict[str, Any]:
    size = re.search(r"(?<![A-Za-z0-9.])\d+(?:\.\d+)?[BM](?![A-Za-z0-9])", listed.title, re.IGNORECASE)
    return {
        "parent_model": "",
        "format": "axmodel",
        "family": _family(listed.package),
        "families": [_family(listed.package)],
        "parameter_size": size[0].upper() if size else "",
        "quantization_level": "",
    }


def _info(served: ServedModel) -> dict[str, Any]:
    """Under the names that clients look for."""
    package = served.engine.package
    info, family, hidden = served.engine.info, _family(package), package.hidden_size
    return {
        "general.architecture": family,
        "general.basename": info.model,
        f"{family}.context_length": served.limits.context_length,
        f"{family}.block_count": info.num_layers,
        f"{family}.vocab_size": info.vocab_size,
        **({f"{family}.embedding_length": hidden} if hidden else {}),
        **({f"{family}.vision.image_size": served.eyes.longest_side} if served.eyes is not None else {}),
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


def _modified(listed: Listed) -> str:
    return timestamp(datetime.fromtimestamp(listed.files[1], UTC))


def _capabilities(chat_format: ChatFormat, sees: bool) -> list[str]:
    """What a model that answers can do here. Whatever can chat can be told of tools."""
    can = {
        "completion": True,
        "tools": chat_format.text.can_render,
        "vision": sees,
        "thinking": chat_format.thinking != "never",
    }
    return [name for name, has in can.items() if has]


def _capabilities_on_disk(model: HostedModel) -> list[str]:
    """Of a model that is not on the card: clients look before they ask for an answer. Its tokenizer and template are
    read for that, once. Where they cannot be, whoever asks for an answer is told why."""
    from axpress.core.device.model_loader import open_tokenizer

    package = model.package
    if package.embeds:
        return EMBEDS
    if model.capabilities is None:
        try:
            chat_format = chat_format_of(open_tokenizer(package), package.enable_thinking)
        except AxpressError:
            return ["completion"]
        model.capabilities = _capabilities(chat_format, model.has_eyes)
    return model.capabilities

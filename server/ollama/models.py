"""What Ollama's API shows of its models, and what it does to them: here there is one, and it stays as it is."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.model_files.model_package import ModelPackage

from .. import version
from ..docs.routes import reads
from ..http.errors import HttpError
from ..http.request_body import parse_json
from ..openai.tokens import no_embeddings
from ..serving.engine_service import Service
from ..serving.handler import refuse, take_body
from ..serving.input_processor import Served
from .dialect import OllamaChat, check_served, ollama
from .requests import OllamaShowRequest
from .stream import timestamp

OLLAMA_VERSION = "0.12.11"
"""The newest version of Ollama whose chat, generate and show we speak; clients look at it before they use what came
late."""
NEVER = "2200-01-01T00:00:00Z"
"""When the model leaves the card, for clients that want a date which every calendar can hold."""

CHANGES = {
    "create": "POST", "copy": "POST", "delete": "DELETE", "pull": "POST", "push": "POST",
}  # fmt: skip
"""What changes a collection of models: method by name."""
EMBEDDINGS = ("embed", "embeddings")


def _json(document: object) -> HTTPResponse:
    return HTTPResponse(orjson.dumps(document), content_type="application/json")


def _loaded(request: Request) -> Served | None:
    """The model, once it is loaded."""
    service: Service = request.app.ctx.service
    return service.served


@reads(ollama, "/api/version")
async def get_version(request: Request) -> HTTPResponse:
    """Ollama's version, and after a dash who speaks it: so that it can be read as a version, and nobody is deceived."""
    return _json({"version": f"{OLLAMA_VERSION}-axpress" + (f".{version()}" if version() != "unknown" else "")})


@reads(ollama, "/api/tags")
async def list_tags(request: Request) -> HTTPResponse:
    """The one model that is served; 503 while it is loading."""
    served = request.app.ctx.service.ready()
    return _json({"models": [{**_model(served), "modified_at": _modified(served)}]})


@reads(ollama, "/api/ps")
async def list_loaded(request: Request) -> HTTPResponse:
    """The same: it is on the card, and stays there."""
    served = _loaded(request)
    if served is None:
        return _json({"models": []})
    package = served.engine.package
    loaded = {"size_vram": package.device_bytes, "context_length": served.limits.context_length, "expires_at": NEVER}
    return _json({"models": [{**_model(served), **loaded}]})


@ollama.post("/api/show", stream=True)
async def show(request: Request) -> HTTPResponse | None:
    """What is known of the model."""
    try:
        wanted = OllamaShowRequest.read(parse_json(await take_body(request, any_content_type=True)))
        served = request.app.ctx.service.ready()
        check_served(wanted.model or wanted.name or "", served.name)
    except Exception as exc:
        return await refuse(request, OllamaChat, exc)
    return _json(
        {
            "modified_at": _modified(served),
            "details": _details(served),
            "parameters": _parameters(served),
            "model_info": _info(served),
            "capabilities": capabilities(served),
        }
    )


async def _refuse_embeddings(request: Request) -> HTTPResponse | None:
    return await refuse(request, OllamaChat, no_embeddings())


async def _refuse_change(request: Request, **_: str) -> HTTPResponse | None:
    text = (
        "axpress serves the one model that it was started with: models are not pulled, pushed, made, copied or deleted"
        " here."
    )
    return await refuse(request, OllamaChat, HttpError(400, text, code="unsupported"))


for _name in EMBEDDINGS:
    ollama.add_route(_refuse_embeddings, f"/api/{_name}", methods=["POST"], name=_name, stream=True)
for _name, _method in CHANGES.items():
    ollama.add_route(_refuse_change, f"/api/{_name}", methods=[_method], name=_name, stream=True)
ollama.add_route(_refuse_change, "/api/blobs/<digest:str>", methods=["HEAD", "POST"], name="blobs", stream=True)


def _model(served: Served) -> dict[str, Any]:
    name, package = tagged(served.name), served.engine.package
    return {
        "name": name,
        "model": name,
        "size": _files(package)[0],
        "digest": hashlib.sha256(served.fingerprint.encode()).hexdigest(),
        "details": _details(served),
    }


def tagged(name: str) -> str:
    """A model's name as Ollama lists it: with a tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _family(served: Served) -> str:
    return re.sub("[^a-z0-9]", "", (served.engine.package.tokenizer_type or "").lower()) or "unknown"


def _details(served: Served) -> dict[str, Any]:
    size = re.search(r"(?<![A-Za-z0-9.])\d+(?:\.\d+)?[BM](?![A-Za-z0-9])", served.engine.info.model, re.IGNORECASE)
    return {
        "parent_model": "",
        "format": "axmodel",
        "family": _family(served),
        "families": [_family(served)],
        "parameter_size": size[0].upper() if size else "",
        "quantization_level": "",
    }


def _info(served: Served) -> dict[str, Any]:
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


def _parameters(served: Served) -> str:
    """The model's own sampling defaults, in the lines of a model file."""
    defaults = served.limits.defaults
    window = defaults.penalty_window or -1
    shown = {
        "temperature": defaults.temperature,
        "top_k": defaults.top_k,
        "top_p": defaults.top_p,
        "min_p": defaults.min_p,
        "repeat_penalty": defaults.repetition_penalty,
        "repeat_last_n": window,
    }
    return "\n".join(f"{name:<30} {value:g}" for name, value in shown.items())


@lru_cache(1)
def _files(package: ModelPackage) -> tuple[int, float]:
    """Bytes of the model's files, and when the last of them was changed."""
    found = [path.stat() for path in (*package.layer_files, package.head_file, package.embed_file)]
    return sum(one.st_size for one in found), max(one.st_mtime for one in found)


def _modified(served: Served) -> str:
    return timestamp(datetime.fromtimestamp(_files(served.engine.package)[1], UTC))


def capabilities(served: Served) -> list[str]:
    """What the model can do here. Whatever can chat can be told of tools."""
    found = {
        "completion": True,
        "tools": served.engine.text.can_render,
        "thinking": served.chat_format.thinking != "never",
    }
    return [name for name, has in found.items() if has]

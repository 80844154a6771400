"""POST /api/pull and DELETE /api/delete: the models directory changed from afar, where models come and go (--models),
by whoever has a key with that right. Without keys nobody may: whatever runs on the machine, or reaches it, could fill
its disk, or empty it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, ClassVar

import orjson
from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.device.model_loader import want
from axpress.core.errors import AxpressError, PackageError

from ..http.access import check_may_change
from ..http.errors import HttpError, translate
from ..http.request_body import parse_json
from ..http.routing import JSON, LINES
from ..schema.fields import Text
from ..serving.engine_service import Service
from ..serving.handler import in_thread, take_body
from ..serving.hosted_model import stored_model
from ..serving.model_pool import ModelPool
from .errors import error_body
from .requests import OllamaFields

LOOK_SECONDS = 1.0
PULLING = "pulling manifest"
SUCCESS = {"status": "success"}


class OllamaPullRequest(OllamaFields):
    """POST /api/pull. A name of the catalogue, or ORG/NAME of the Hugging Face hub."""

    refused: ClassVar[dict[str, str]] = {"insecure": "sources other than the catalogue and the hub"}

    model: Text | None = None
    name: Text | None = None
    """The older word for `model`."""
    stream: bool | None = None
    """null and absent mean true, as Ollama has it."""


class OllamaDeleteRequest(OllamaFields):
    """DELETE /api/delete. A model that is on the card is to be unloaded first, by `keep_alive` 0."""

    model: Text | None = None
    name: Text | None = None
    """The older word for `model`."""


async def pull_model(request: Request) -> HTTPResponse | None:
    """Fetches a model into the models directory; it can be asked for then."""
    service, pool, body = await _allowed(request)
    asked = await in_thread(service, lambda: OllamaPullRequest.read(parse_json(body)))
    name = _name(asked)
    if pool.pulling:
        text = f"{pool.pulling} is being pulled; one model is pulled at a time."
        raise HttpError(429, text, code="rate_limit_exceeded", headers={"retry-after": "30"})
    pool.pulling = name
    work = asyncio.create_task(_pull(pool, name))
    if asked.stream is False:
        await asyncio.shield(work)  # a client that leaves does not end it: the next one finds it there
        return HTTPResponse(orjson.dumps(SUCCESS), content_type=JSON)
    response: Any = await request.respond(content_type=LINES)
    await response.send(_line({"status": PULLING}))
    while not (await asyncio.wait([work], timeout=LOOK_SECONDS))[0]:
        for line in await asyncio.to_thread(lambda: list(_progress(name))):
            await response.send(line)
    error = work.exception()
    await response.send(_line(SUCCESS) if error is None else error_body(translate(error)) + b"\n")
    await response.eof()
    return None


async def _pull(pool: ModelPool, name: str) -> None:
    try:
        stored = await asyncio.to_thread(_fetch, name)
        pool.add(await asyncio.to_thread(stored_model, pool.settings, stored))
    finally:
        pool.pulling = ""


def _fetch(name: str) -> Any:
    from axpress.core.model_store import ModelStore, find_entry, pull

    store = ModelStore()
    try:
        entry = find_entry(name)
        found = store.find(entry.name)
        return found or pull(store, entry, tell=lambda plan: None, verify=want, progress=False)
    except PackageError as error:
        raise HttpError(400, str(error), param="model", code="not_pulled") from None


def _progress(name: str) -> Iterator[bytes]:
    from axpress.core.model_store import ModelStore, find_entry
    from axpress.core.model_store.store import size_of, staging_of

    try:
        entry, store = find_entry(name), ModelStore()
        done = size_of(staging_of(store.directory(entry.name)))
    except (AxpressError, OSError):  # it has just ended
        return
    total = max(done, entry.download_bytes or 0)
    yield _line({"status": f"pulling {name}", "digest": name, "total": total, "completed": done})


def _line(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document) + b"\n"


async def delete_model(request: Request) -> HTTPResponse:
    """Removes a model from the models directory, for good."""
    service, pool, body = await _allowed(request)
    name = _name(await in_thread(service, lambda: OllamaDeleteRequest.read(parse_json(body))))
    pool.find(name)
    hosted = next((model for model in pool.models if model.names.served.casefold() == _plain(name)), None)
    if hosted is None:
        text = f"'{name}' is another name of a model: name it as it is listed."
        raise HttpError(400, text, param="model", code="invalid_value")
    if hosted.state != "idle" or hosted.stays:
        why = "stays on the card" if hosted.stays else "is on the card: unload it first (keep_alive 0)"
        raise HttpError(400, f"model '{hosted.name}' {why}.", param="model", code="model_in_use")
    pool.remove(hosted)
    try:
        await asyncio.to_thread(_remove, hosted.names.served)
    except PackageError as error:
        if hosted.package.directory.is_dir():
            pool.add(hosted)
        raise HttpError(400, str(error), param="model", code="invalid_value") from None
    return HTTPResponse(b"", content_type=JSON)


def _remove(name: str) -> None:
    from axpress.core.model_store import ModelStore

    ModelStore().remove(name)


def _plain(name: str) -> str:
    return name.casefold().removesuffix(":latest")


def _name(asked: OllamaPullRequest | OllamaDeleteRequest) -> str:
    name = asked.model or asked.name
    if not name:
        raise HttpError(
            400, "'model' is missing: the name of a model.", param="model", code="missing_required_parameter"
        )
    return name.removesuffix(":latest")


async def _allowed(request: Request) -> tuple[Service, ModelPool, bytes]:
    """Where models come and go, for who may change them. HttpError 400 or 403."""
    service: Service = request.app.ctx.service
    if service.pool is None or not service.settings.on_demand:
        text = (
            "axpress serves the models that it was started with: start it with --models, and with a key that has the"
            " right to change them, to pull and delete models here."
        )
        raise HttpError(400, text, code="unsupported")
    check_may_change(request)
    return service, service.pool, await take_body(request, any_content_type=True)

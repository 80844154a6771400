"""From a POST to its answer, for every dialect: body, job, engine, and the end, however it comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.request import Delta

from ..http.access import cache_salt_of, slot
from ..http.errors import HttpError
from ..http.request_body import answer_unread, check_content_type, parse_json, read_body
from .delivery import StreamedAnswer, WholeAnswer
from .dialect import Dialect
from .engine_service import Service
from .input_processor import Served, prepare_request
from .prepared_request import PreparedRequest

log = logging.getLogger("axpress.request")


async def answer(request: Request, kind: type[Dialect], **path: str) -> HTTPResponse | None:
    """Answers one request in the dialect `kind`, streamed or whole. For routes with stream=True. `path`: for
    `kind.read`."""
    service: Service = request.app.ctx.service
    try:
        body = await take_body(request, kind.any_content_type)
        served = service.ready()
        dialect, prepared = await in_thread(
            service, _prepare, kind, path, body, served, partial(cache_salt_of, request)
        )
    except Exception as exc:
        return await refuse(request, kind, exc)
    service.begin_answer()
    try:
        with slot(request, len(prepared.requests)):
            if prepared.spec.stream:
                await _stream(request, service, dialect, prepared)
                return None
            return await _whole(service, dialect, prepared)
    except Exception as exc:
        return await refuse(request, kind, exc)
    finally:
        service.end_answer()


async def take_body(request: Request, any_content_type: bool = False) -> bytes:
    """The body, once it is clear that somebody can answer it. Raises HttpError, EngineClosed."""
    service: Service = request.app.ctx.service
    check_content_type(request, any_content_type)
    service.ready()
    body = await read_body(request, service.settings.max_body, service.settings.read_timeout)
    # Sanic stops reading from a connection that sent a large body, and would not see its client leave.
    request.transport.resume_reading()  # type: ignore[attr-defined]
    return body


async def in_thread(service: Service, work: Callable[..., Any], *arguments: Any) -> Any:
    """Runs what takes milliseconds off the event loop."""
    return await asyncio.get_running_loop().run_in_executor(service.preparing, work, *arguments)


def _prepare(
    kind: type[Dialect], path: dict[str, str], body: bytes, served: Served, cache_salt: Callable[[str | None], bytes]
) -> tuple[Dialect, PreparedRequest]:
    """From bytes to a checked job; `cache_salt` makes one of a prompt_cache_key. Raises RequestError, HttpError."""
    dialect = kind.read(parse_json(body), **path)
    return dialect, prepare_request(dialect.spec, served, cache_salt(dialect.spec.prompt_cache_key))


async def refuse(request: Request, kind: type[Dialect], error: BaseException) -> HTTPResponse | None:
    """Answers an error, also while the body is still on its way."""
    if not request.stream.request_body:  # type: ignore[union-attr]
        return kind.error(error)
    await answer_unread(request, kind.error(error))
    return None


class _Running:
    """A job's generations, all admitted or none, which are cancelled, so that the card is free, however the `with`
    block is left."""

    def __init__(
        self, service: Service, prepared: PreparedRequest, receive: Callable[[int, list[Delta]], None]
    ) -> None:
        self._channels = [service.bridge.channel(partial(receive, index)) for index in range(len(prepared.requests))]
        self._generations = prepared.engine.submit_all(
            list(prepared.requests), [channel.sink for channel in self._channels]
        )

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        for channel in self._channels:
            channel.close()
        for generation in self._generations:
            generation.cancel()


def _too_long(seconds: float) -> HttpError:
    text = f"The answer was not ready within this server's limit of {seconds:g} seconds per request."
    return HttpError(504, text, code="request_timeout", headers={"x-should-retry": "false"})


async def _whole(service: Service, dialect: Dialect, prepared: PreparedRequest) -> HTTPResponse:
    answer = WholeAnswer(asyncio.get_running_loop(), prepared)
    begun = time.monotonic()
    limit = service.settings.request_timeout
    outcome = "left"
    running = _Running(service, prepared, answer.receive)
    try:
        with running:
            async with asyncio.timeout(limit):
                await answer.finished
        error, outcome = answer.progress.error, answer.progress.outcome
    except TimeoutError:
        error, outcome = _too_long(limit), "timeout"
    finally:
        _log(prepared, outcome, answer.progress.num_tokens, begun)
    if error is not None:
        raise error
    return HTTPResponse(
        dialect.whole(prepared, answer.answers(), answer.progress.totals()), content_type="application/json"
    )


async def _stream(request: Request, service: Service, dialect: Dialect, prepared: PreparedRequest) -> None:
    settings = service.settings
    answer = StreamedAnswer(request, prepared, dialect.stream(prepared), settings.stall_timeout)
    begun = time.monotonic()
    outcome = "left"
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    running = _Running(service, prepared, answer.receive)
    try:
        with running:
            try:
                async with asyncio.timeout(settings.request_timeout) as deadline:
                    await answer.run(request, headers)
                    outcome = answer.progress.outcome
                    await answer.close()
            except TimeoutError:
                if not deadline.expired():
                    raise
                outcome = "timeout"
                await answer.fail(_too_long(settings.request_timeout))
    except TimeoutError:
        outcome = "stalled"
        _abort(request)
    finally:
        _log(prepared, outcome, answer.progress.num_tokens, begun)


def _abort(request: Request) -> None:
    """Cut a client that does not read."""
    transport = request.transport
    if transport is not None:
        transport.abort()  # type: ignore[attr-defined]


def _log(prepared: PreparedRequest, outcome: str, num_tokens: int, begun: float) -> None:
    log.info(
        "%s %s: %d prompt tokens, %d generated, %s, %.3f s",
        prepared.nonce, "stream" if prepared.spec.stream else "whole", prepared.prompt_tokens, num_tokens, outcome,
        time.monotonic() - begun,
    )  # fmt: skip

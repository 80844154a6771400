"""From a POST to its answer, for every dialect: body, prepared request, engine, and the end, however it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.request import Delta

from ..http.access import cache_salt_of, client_of, slot, take_rate
from ..http.errors import HttpError
from ..http.request_body import check_content_type, parse_json, read_body
from ..http.routing import JSON, Handler
from .delivery import RequestProgress, StreamedAnswer, WholeAnswer
from .dialect import Dialect, NothingToGenerate
from .engine_service import Service
from .input_processor import prepare_request
from .model_names import ModelNames
from .prepared_request import PreparedRequest
from .served_model import ServedModel

Reader = Callable[[Any, ModelNames], Dialect]
"""`Dialect.read` of one dialect, or something like it."""


def answers(read: Reader, any_content_type: bool = False) -> Handler:
    """The handler of a route whose requests `read` understands. `any_content_type`: its clients, where they are no
    pages, may send JSON under any content type."""

    async def handler(request: Request, **_: str) -> HTTPResponse | None:
        return await answer_request(request, read, any_content_type)

    return handler


def refuses(error: Callable[[], HttpError]) -> Handler:
    """The handler of a route that is there only to tell clients of other servers why something cannot be."""

    async def handler(request: Request, **_: str) -> HTTPResponse | None:
        raise error()

    return handler


async def answer_request(request: Request, read: Reader, any_content_type: bool = False) -> HTTPResponse | None:
    """Answers one request, streamed or whole."""
    service: Service = request.app.ctx.service
    take_rate(request, "requests", 1)
    body = await take_body(request, any_content_type)
    try:
        dialect, prepared = await in_thread(
            service, _prepare, service, read, body, service.ready(), partial(cache_salt_of, request), client_of(request)
        )
    except NothingToGenerate as nothing:
        return HTTPResponse(nothing.reply, content_type=JSON)
    take_rate(request, "tokens", prepared.prompt_tokens)
    service.begin_answer()
    try:
        with slot(request, 1 if prepared.spec.embedding else len(prepared.requests)):
            if prepared.spec.stream:
                await _stream(request, service, dialect, prepared)
                return None
            return await _whole(request, service, dialect, prepared)
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
    service: Service,
    read: Reader,
    body: bytes,
    served: ServedModel,
    cache_salt: Callable[[str | None], bytes],
    client: bytes,
) -> tuple[Dialect, PreparedRequest]:
    """From bytes to a checked request; `cache_salt` makes one of a prompt_cache_key. Raises RequestError, HttpError."""
    document, names = parse_json(body), served.limits.names
    dialect = service.lenience.read(read, document, names) if service.lenience else read(document, names)
    spec = replace(dialect.spec, clip=True) if service.lenience else dialect.spec
    return dialect, prepare_request(spec, served, cache_salt(spec.prompt_cache_key), client)


@asynccontextmanager
async def _generating(
    service: Service, prepared: PreparedRequest, receive: Callable[[int, list[Delta]], None]
) -> AsyncIterator[None]:
    """Around a request's generations, which are all admitted or none, and are cancelled, so that the card is free,
    however the block is left.

    They are submitted in a thread, since prompts are indexed then. A client that leaves meanwhile leaves nothing
    behind: what has not begun never does, what is on its way is cancelled as soon as it is there."""
    streams = [service.bridge.channel(partial(receive, index)) for index in range(len(prepared.requests))]
    submission = service.submitting.submit(
        prepared.engine.submit_all, list(prepared.requests), [stream.sink for stream in streams]
    )
    try:
        await asyncio.wrap_future(submission)
        yield
    finally:
        for stream in streams:
            stream.close()
        if not submission.cancel():
            submission.add_done_callback(_cancel_generations)


def _cancel_generations(submission: Future[Any]) -> None:
    if not submission.cancelled() and submission.exception() is None:
        for generation in submission.result():
            generation.cancel()


def _too_long(seconds: float) -> HttpError:
    text = f"The answer was not ready within this server's limit of {seconds:g} seconds per request."
    return HttpError(504, text, code="request_timeout", headers={"x-should-retry": "false"})


async def _whole(request: Request, service: Service, dialect: Dialect, prepared: PreparedRequest) -> HTTPResponse:
    answer = WholeAnswer(asyncio.get_running_loop(), prepared)
    limit = service.settings.request_timeout
    async with _generating(service, prepared, answer.receive):
        outcome = "left"
        try:
            async with asyncio.timeout(limit):
                await answer.finished
            error, outcome = answer.progress.error, answer.progress.outcome
        except TimeoutError:
            error, outcome = _too_long(limit), "timeout"
        finally:
            _note(request, prepared, answer.progress, outcome)
    if error is not None:
        raise error
    write = partial(dialect.whole, prepared, answer.answers(), answer.progress.totals())
    document = await in_thread(service, write) if prepared.spec.embedding else write()  # numbers in megabytes
    return HTTPResponse(document, content_type=JSON)


async def _stream(request: Request, service: Service, dialect: Dialect, prepared: PreparedRequest) -> None:
    settings = service.settings
    answer = StreamedAnswer(request, prepared, dialect.stream(prepared), settings.stall_timeout)
    async with _generating(service, prepared, answer.receive):
        outcome = "left"
        try:
            try:
                async with asyncio.timeout(settings.request_timeout) as deadline:
                    await answer.run(request, {"cache-control": "no-cache", "x-accel-buffering": "no"})
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
            _note(request, prepared, answer.progress, outcome)


def _abort(request: Request) -> None:
    """Cut a client that does not read."""
    transport = request.transport
    if transport is not None:
        transport.abort()  # type: ignore[attr-defined]


def _note(request: Request, prepared: PreparedRequest, progress: RequestProgress, outcome: str) -> None:
    """For the request's line in the log, and the metrics."""
    request.ctx.facts = {
        "answer": prepared.nonce,
        "way": "stream" if prepared.spec.stream else "whole",
        "prompt_tokens": prepared.prompt_tokens,
        "generated_tokens": progress.num_tokens,
        "outcome": outcome,
    }
    if progress.error is not None:
        request.ctx.code = progress.error.code
    request.app.ctx.access.rates.spend(client_of(request), progress.num_tokens)
    for last in progress.lasts:
        request.app.ctx.service.answers.add(last)

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

from axpress.core.errors import QueueFull
from axpress.core.request import Delta

from ..http.access import cache_salt_of, client_of, slot, take_rate
from ..http.errors import HttpError, translate
from ..http.request_body import check_content_type, parse_json, read_body
from ..http.routing import EVENTS, JSON, Handler
from .delivery import KEEP_ALIVE_SECONDS, RequestProgress, StreamedAnswer, WholeAnswer
from .dialect import Dialect, NothingToGenerate
from .engine_service import Service
from .hosted_model import HostedModel
from .input_processor import prepare_request
from .model_names import ModelNames
from .model_pool import ModelPool
from .prepared_request import PreparedRequest
from .served_model import ServedModel

STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
Reader = Callable[[Any, ModelNames], Dialect]
"""`Dialect.read` of one dialect, or something like it."""


def answers(read: Reader, any_content_type: bool = False) -> Handler:
    """The handler of a route whose requests `read` understands. `any_content_type`: its clients, where they are no
    pages, may send JSON under any content type."""

    async def handler(request: Request, **path: str) -> HTTPResponse | None:
        return await answer_request(request, read, any_content_type, path.get("deployment"))

    return handler


def refuses(error: Callable[[], HttpError]) -> Handler:
    """The handler of a route that is there only to tell clients of other servers why something cannot be."""

    async def handler(request: Request, **_: str) -> HTTPResponse | None:
        raise error()

    return handler


async def answer_request(
    request: Request, read: Reader, any_content_type: bool = False, deployment: str | None = None
) -> HTTPResponse | None:
    """Answers one request, streamed or whole. `deployment`: another name that may say which model is meant."""
    service: Service = request.app.ctx.service
    take_rate(request, "requests", 1)
    async with HeldBody(request, any_content_type) as body:
        if service.pool is not None:
            return await _answer_by_name(request, service, service.pool, read, body, deployment)
        served = service.ready()
        try:
            dialect, prepared = await in_thread(
                service, _prepare, service, read, body.data, served, partial(cache_salt_of, request), client_of(request)
            )
        except NothingToGenerate as nothing:
            return HTTPResponse(nothing.reply, content_type=JSON)
        if prepared is None:
            prepared = await _with_pictures(request, service, dialect, served)
        body.done()
        return await _answer(request, service, dialect, prepared)


async def _answer_by_name(
    request: Request, service: Service, pool: ModelPool, read: Reader, body: HeldBody, deployment: str | None
) -> HTTPResponse | None:
    """Where requests choose among models, which may have to be loaded first."""
    hosted, dialect = await in_thread(service, _read_for, service, pool, read, body.data, deployment)
    if isinstance(dialect, NothingToGenerate):
        if dialect.keep_alive == 0:
            pool.unload(hosted)
        else:
            await _take(request, service, pool, hosted, None)
            pool.give(hosted, dialect.keep_alive)
        return HTTPResponse(dialect.reply, content_type=JSON)
    head = EarlyHead(request, dialect)
    try:
        served = await _take(request, service, pool, hosted, head)
        try:
            prepared = await _with_pictures(request, service, dialect, served)
            body.done()
            return await _answer(request, service, dialect, prepared, head.response)
        finally:
            pool.give(hosted, dialect.spec.keep_alive)
    except Exception as exc:
        if head.response is None:
            raise
        await head.fail(translate(exc))
        return None


async def _with_pictures(request: Request, service: Service, dialect: Dialect, served: ServedModel) -> PreparedRequest:
    """The request, once its pictures, if it has any, are what the model takes; their data are let go."""
    served.limits.names.check(dialect.spec.model)
    salt = cache_salt_of(request, dialect.spec.prompt_cache_key)
    pictures = await service.pictures.prepare(dialect.spec.images, served, salt)
    dialect.pictures_taken()
    return await in_thread(service, prepare_request, dialect.spec, served, salt, client_of(request), pictures)


class HeldBody:
    """The body of a request that is answered, for as long as it is needed. One beyond the limit of texts, which only a
    model with eyes is sent, has one of few places meanwhile: many large ones do not fill the memory."""

    def __init__(self, request: Request, any_content_type: bool = False) -> None:
        self._request, self._any = request, any_content_type
        self._places: asyncio.Semaphore | None = None
        self.data = b""

    async def __aenter__(self) -> HeldBody:
        """Raises as `take_body`."""
        service: Service = self._request.app.ctx.service
        settings, stream = service.settings, self._request.stream
        most = settings.max_picture_body if service.has_eyes else settings.max_body
        if settings.max_body < (stream.request_bytes or 0) <= most:  # type: ignore[union-attr]
            try:
                async with asyncio.timeout(settings.read_timeout / 2):  # then the connection would count as slow
                    await service.pictures.large_bodies.acquire()
            except TimeoutError:
                raise QueueFull("as many large requests are held as may be", 10.0) from None
            self._places = service.pictures.large_bodies
        else:
            most = settings.max_body
        try:
            self.data = await take_body(self._request, self._any, most)
        except BaseException:
            self.done()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.done()

    def done(self) -> None:
        """It is read, and all that is in it taken."""
        self.data = b""
        if self._places is not None:
            self._places.release()
            self._places = None


class EarlyHead:
    """The head of a stream whose model is not there yet, sent when that takes long, so that nobody between gives up."""

    def __init__(self, request: Request, dialect: Dialect) -> None:
        self._request, self._dialect = request, dialect
        self.response: Any = None

    async def wait(self) -> None:
        """Nothing is there still."""
        if self._dialect.spec.stream and self._dialect.waiting:
            if self.response is None:
                self.response = await self._request.respond(content_type=EVENTS, headers=STREAM_HEADERS)
            await self.response.send(self._dialect.waiting)

    async def fail(self, error: HttpError) -> None:
        """It does not come."""
        await self.response.send(self._dialect.not_begun(error))
        await self.response.eof()


async def _take(
    request: Request, service: Service, pool: ModelPool, hosted: HostedModel, head: EarlyHead | None
) -> ServedModel:
    """The model, to be given back. Raises as `ModelPool.take`, and HttpError 504 where it takes too long."""
    taking = asyncio.get_running_loop().create_task(pool.take(hosted))
    try:
        async with asyncio.timeout(service.settings.request_timeout):
            while not (await asyncio.wait([taking], timeout=KEEP_ALIVE_SECONDS))[0]:
                if head is not None:
                    await head.wait()
        return taking.result()
    except BaseException as exc:
        if not taking.cancel() and not taking.cancelled() and taking.exception() is None:
            pool.give(hosted)
        if isinstance(exc, TimeoutError):
            raise _too_long(service.settings.request_timeout) from None
        raise


@asynccontextmanager
async def model_of(service: Service, body: bytes, request: Request) -> AsyncIterator[ServedModel]:
    """The model that a body names, for what is done with it beside answers. Raises as `ready`, HttpError."""
    if service.pool is None:
        yield service.ready()
        return
    hosted = await in_thread(service, lambda: _named(service.pool, parse_json(body), None))
    served = await _take(request, service, service.pool, hosted, None)
    try:
        yield served
    finally:
        service.pool.give(hosted)


def _named(pool: ModelPool | None, document: Any, deployment: str | None) -> HostedModel:
    """The model that a request means: the one that its body names; with a `deployment`, the one that is called so, if
    any is, else the body's, else the default one."""
    assert pool is not None
    name = (document.get("model") or document.get("name")) if isinstance(document, dict) else None
    name = name if isinstance(name, str) else None
    if deployment is None:
        return pool.find(name)
    return next((model for known in (deployment, name) if known for model in pool.models if known in model.names),
                pool.find(None))  # fmt: skip


def _read_for(
    service: Service, pool: ModelPool, read: Reader, body: bytes, deployment: str | None
) -> tuple[HostedModel, Dialect | NothingToGenerate]:
    document = parse_json(body)
    hosted = _named(pool, document, deployment)
    try:
        return hosted, _read(service, read, document, hosted.names)
    except NothingToGenerate as nothing:
        return hosted, nothing


async def _answer(
    request: Request, service: Service, dialect: Dialect, prepared: PreparedRequest, head: Any = None
) -> HTTPResponse | None:
    """`head`: of a stream that has begun."""
    take_rate(request, "tokens", prepared.prompt_tokens)
    service.begin_answer()
    try:
        with slot(request, len(prepared.requests) if prepared.spec.generates else 1):
            if prepared.spec.stream:
                await _stream(request, service, dialect, prepared, head)
                return None
            return await _whole(request, service, dialect, prepared)
    finally:
        service.end_answer()


async def take_body(request: Request, any_content_type: bool = False, most: int | None = None) -> bytes:
    """The body, once it is clear that somebody can answer it; of at most `most` bytes (None: as texts may have). Raises
    HttpError, EngineClosed."""
    service: Service = request.app.ctx.service
    check_content_type(request, any_content_type)
    service.check_open() if service.pool is not None else service.ready()
    body = await read_body(request, most or service.settings.max_body, service.settings.read_timeout)
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
) -> tuple[Dialect, PreparedRequest | None]:
    """From bytes to a checked request, None where it has pictures to be made ready first; `cache_salt` makes one of a
    prompt_cache_key. Raises RequestError, HttpError."""
    dialect = _read(service, read, parse_json(body), served.limits.names)
    if dialect.spec.images:
        return dialect, None
    return dialect, prepare_request(dialect.spec, served, cache_salt(dialect.spec.prompt_cache_key), client)


def _read(service: Service, read: Reader, document: Any, names: ModelNames) -> Dialect:
    if service.lenience is None:
        return read(document, names)
    dialect = service.lenience.read(read, document, names)
    dialect.spec = replace(dialect.spec, clip=True)
    return dialect


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
    document = write() if prepared.spec.generates else await in_thread(service, write)  # numbers in megabytes
    return HTTPResponse(document, content_type=JSON)


async def _stream(
    request: Request, service: Service, dialect: Dialect, prepared: PreparedRequest, head: Any = None
) -> None:
    settings = service.settings
    answer = StreamedAnswer(request, prepared, dialect.stream(prepared), settings.stall_timeout)
    async with _generating(service, prepared, answer.receive):
        outcome = "left"
        try:
            try:
                async with asyncio.timeout(settings.request_timeout) as deadline:
                    await answer.run(request, STREAM_HEADERS, head)
                    outcome = answer.progress.outcome
                    await answer.close()
            except TimeoutError:
                if not deadline.expired():
                    raise
                outcome = "timeout"
                await answer.fail(_too_long(settings.request_timeout))
            except (TypeError, ValueError) as exc:  # what is to be sent cannot be written as JSON
                outcome = "error"
                await answer.fail(translate(exc))
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
        request.app.ctx.service.answers.of(prepared.model).add(last)

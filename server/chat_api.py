"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from axpress.core.request import Delta, GenerationRequest
from sanic import Blueprint
from sanic.request import Request
from sanic.response import HTTPResponse

from .answers import StreamedAnswer, WholeAnswer, failure
from .body import check_content_type, discard_body, parse_json, read_body
from .bridge import Receiver
from .errors import HttpError, error_response
from .params import ModelLimits, check_model, generation_request, template_messages
from .schema import ChatRequest, parse
from .service import Service
from .sse import ChunkWriter, completion, logprobs_content

if TYPE_CHECKING:
    from axpress.core.engine import Engine

log = logging.getLogger("axpress.request")
chat = Blueprint("chat")


@dataclass(slots=True)
class Job:
    """One accepted request on its way."""

    chat: ChatRequest
    generation: GenerationRequest
    engine: Engine
    model: str
    answer_id: str = field(default_factory=lambda: "chatcmpl-" + secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def prompt_tokens(self) -> int:
        return len(self.generation.prompt_ids)


def prepare(body: bytes, engine: Engine, limits: ModelLimits, model: str) -> Job:
    """From bytes to a checked job: parse, validate, render, tokenise. Runs in a thread. Raises RequestError, HttpError."""
    request = parse(parse_json(body))
    check_model(request, limits)
    prompt_ids = engine.text.render(template_messages(request))
    return Job(request, generation_request(request, limits, prompt_ids), engine, model)


@chat.post("/v1/chat/completions", stream=True)
async def chat_completions(request: Request) -> HTTPResponse | None:
    """Answer a conversation, streamed or whole."""
    service: Service = request.app.ctx.service
    try:
        check_content_type(request)
        engine, limits = service.ready()
        body = await read_body(request, service.settings.max_body, service.settings.read_timeout)
        # Sanic stops reading from a connection that sent a large body, and would not see its client leave.
        request.transport.resume_reading()  # type: ignore[attr-defined]
        loop = asyncio.get_running_loop()
        job = await loop.run_in_executor(service.preparing, prepare, body, engine, limits, service.served_name)
    except HttpError as exc:
        return await _refuse(request, exc)
    service.num_answers += 1
    try:
        if job.chat.stream:
            await _stream(request, service, job)
            return None
        return await _whole(service, job)
    finally:
        service.num_answers -= 1


async def _refuse(request: Request, error: HttpError) -> HTTPResponse | None:
    """Answer an error; when the body is still on its way, before reading (a bit of) it."""
    stream: Any = request.stream
    if not stream.request_body:
        return error_response(error)
    stream.keep_alive = False
    response = await request.respond(error_response(error))
    await response.send(end_stream=True)
    await discard_body(request)
    return None


class _Running:
    """A generation that is cancelled, so that the card is free, however its `with` block is left."""

    def __init__(self, service: Service, job: Job, receive: Receiver) -> None:
        self._channel = service.bridge.channel(receive)
        self._generation = job.engine.submit(job.generation, self._channel.sink)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._generation.cancel()


def _too_long(seconds: float) -> HttpError:
    text = f"The answer was not ready within this server's limit of {seconds:g} seconds per request."
    return HttpError(504, text, code="request_timeout", headers={"x-should-retry": "false"})


async def _whole(service: Service, job: Job) -> HTTPResponse:
    answer = WholeAnswer(asyncio.get_running_loop())
    begun = time.monotonic()
    limit = service.settings.request_timeout
    outcome = "left"
    running = _Running(service, job, answer.receive)
    try:
        with running:
            async with asyncio.timeout(limit):
                last = await answer.finished
        error = failure(last)
        outcome = last.finish_reason or ""
    except TimeoutError:
        error, outcome = _too_long(limit), "timeout"
    finally:
        _log(job, outcome, answer.num_tokens, begun)
    return error_response(error) if error else HTTPResponse(_completion(job, answer, last), content_type="application/json")


def _completion(job: Job, answer: WholeAnswer, last: Delta) -> bytes:
    logprobs = logprobs_content(answer.logprobs, job.engine.text.token_bytes) if job.chat.logprobs else None
    return completion(
        job.answer_id, job.created, job.model, answer.text, last.finish_reason or "stop", job.prompt_tokens, answer.num_tokens,
        logprobs,
    )


async def _stream(request: Request, service: Service, job: Job) -> None:
    settings = service.settings
    include_usage = bool(job.chat.stream_options and job.chat.stream_options.include_usage)
    token_bytes = job.engine.text.token_bytes if job.chat.logprobs else None
    writer = ChunkWriter(job.answer_id, job.created, job.model, include_usage, token_bytes)
    answer = StreamedAnswer(request, writer, settings.stall_timeout)
    begun = time.monotonic()
    outcome = "left"
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    running = _Running(service, job, answer.receive)
    try:
        with running:
            try:
                async with asyncio.timeout(settings.request_timeout) as deadline:
                    last = await answer.run(request, headers)
                    outcome = last.finish_reason or ""
                    await answer.close(job.prompt_tokens, include_usage)
            except TimeoutError:
                if not deadline.expired():
                    raise
                outcome = "timeout"
                await answer.fail(_too_long(settings.request_timeout))
    except TimeoutError:
        outcome = "stalled"
        _abort(request)
    finally:
        _log(job, outcome, answer.num_tokens, begun)


def _abort(request: Request) -> None:
    """Cut a client that does not read."""
    transport = request.transport
    if transport is not None:
        transport.abort()  # type: ignore[attr-defined]


def _log(job: Job, outcome: str, num_tokens: int, begun: float) -> None:
    log.info(
        "%s %s: %d prompt tokens, %d generated, %s, %.3f s",
        job.answer_id, "stream" if job.chat.stream else "whole", job.prompt_tokens, num_tokens, outcome, time.monotonic() - begun,
    )

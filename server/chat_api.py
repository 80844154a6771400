"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sanic import Blueprint
from sanic.request import Request
from sanic.response import HTTPResponse

from axpress.core.request import Delta, GenerationRequest

from .answers import StreamedAnswer, WholeAnswer
from .body import check_content_type, discard_body, parse_json, read_body
from .errors import HttpError, error_response
from .params import ModelLimits, check_model, choices, generation_request, template_messages
from .schema import ChatRequest, parse
from .service import Service
from .sse import AnswerHead, ChunkWriter, TokenBytes, completion

if TYPE_CHECKING:
    from axpress.core.engine import Engine

log = logging.getLogger("axpress.request")
chat = Blueprint("chat")


@dataclass(slots=True)
class Job:
    """One accepted request on its way. `choices`: what the engine is to generate, one for each of the `n` answers."""

    chat: ChatRequest
    choices: list[GenerationRequest]
    engine: Engine
    model: str
    answer_id: str = field(default_factory=lambda: "chatcmpl-" + secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def prompt_tokens(self) -> int:
        return len(self.choices[0].prompt_ids)

    @property
    def token_bytes(self) -> TokenBytes | None:
        """For log-probabilities, where they are wanted."""
        return self.engine.text.token_bytes if self.chat.logprobs else None

    @property
    def head(self) -> AnswerHead:
        """The answer's first fields; a service tier is told when one was asked for, "auto" being the default one."""
        tier = self.chat.service_tier
        return AnswerHead(self.answer_id, self.created, self.model, "default" if tier == "auto" else tier)


def prepare(body: bytes, engine: Engine, limits: ModelLimits, model: str) -> Job:
    """From bytes to a checked job: parse, validate, render, tokenise. Runs in a thread. Raises RequestError, HttpError."""
    request = parse(parse_json(body))
    check_model(request, limits)
    prompt_ids = engine.text.render(template_messages(request))
    prediction = tuple(engine.text.encode(request.prediction.text)) if request.prediction is not None else ()
    generation = generation_request(request, limits, prompt_ids, prediction)
    return Job(request, choices(request, limits, generation), engine, model)


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
    service.begin_answer()
    try:
        if job.chat.stream:
            await _stream(request, service, job)
            return None
        return await _whole(service, job)
    finally:
        service.end_answer()


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
    """A job's generations, all admitted or none, which are cancelled, so that the card is free, however the `with` block is left."""

    def __init__(self, service: Service, job: Job, receive: Callable[[int, list[Delta]], None]) -> None:
        self._channels = [service.bridge.channel(partial(receive, index)) for index in range(len(job.choices))]
        self._generations = job.engine.submit_all(job.choices, [channel.sink for channel in self._channels])

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


async def _whole(service: Service, job: Job) -> HTTPResponse:
    answer = WholeAnswer(asyncio.get_running_loop(), len(job.choices))
    begun = time.monotonic()
    limit = service.settings.request_timeout
    outcome = "left"
    running = _Running(service, job, answer.receive)
    try:
        with running:
            async with asyncio.timeout(limit):
                await answer.finished
        error, outcome = answer.tally.error, answer.tally.outcome
    except TimeoutError:
        error, outcome = _too_long(limit), "timeout"
    finally:
        _log(job, outcome, answer.tally.num_tokens, begun)
    if error is not None:
        return error_response(error)
    body = completion(job.head, answer.choices(job.token_bytes), answer.tally.usage(job.prompt_tokens))
    return HTTPResponse(body, content_type="application/json")


async def _stream(request: Request, service: Service, job: Job) -> None:
    settings = service.settings
    include_usage = bool(job.chat.stream_options and job.chat.stream_options.include_usage)
    writers = [ChunkWriter(job.head, index, include_usage, job.token_bytes) for index in range(len(job.choices))]
    answer = StreamedAnswer(request, writers, settings.stall_timeout)
    begun = time.monotonic()
    outcome = "left"
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    running = _Running(service, job, answer.receive)
    try:
        with running:
            try:
                async with asyncio.timeout(settings.request_timeout) as deadline:
                    await answer.run(request, headers)
                    outcome = answer.tally.outcome
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
        _log(job, outcome, answer.tally.num_tokens, begun)


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

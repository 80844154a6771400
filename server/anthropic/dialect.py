"""POST /v1/messages and POST /v1/messages/count_tokens: Anthropic's answers, whole."""

from __future__ import annotations

from typing import Any, Self

import orjson
from sanic.request import Request
from sanic.response import HTTPResponse

from ..http.access import cache_salt_of
from ..http.errors import HttpError
from ..http.request_body import parse_json
from ..http.routing import json_response
from ..serving.dialect import Answer, Dialect, StreamWriter, Totals
from ..serving.engine_service import Service
from ..serving.generation_spec import GenerationSpec, without_none
from ..serving.handler import HeldBody, in_thread, model_of
from ..serving.model_names import ModelNames
from ..serving.output_parser import Piece, pieces
from ..serving.prepared_request import PreparedRequest
from ..serving.prompts import seen_conversation
from ..serving.served_model import ServedModel
from .conversation import spec
from .errors import error_body
from .requests import CountRequest, MessagesRequest
from .stream import MessageStream, head, stopped, usage


class MessagesDialect(Dialect):
    """Anthropic's messages."""

    def __init__(self, request: MessagesRequest) -> None:
        sampling = without_none(temperature=request.temperature, top_p=request.top_p, top_k=request.top_k)
        stop = tuple(request.stop_sequences or ())
        self.spec = spec(
            request,
            stream=bool(request.stream),
            max_tokens=request.max_tokens,
            clip=True,  # these clients always say a number, and mostly a large one
            sampling=sampling,
            stop=stop,
        )

    @classmethod
    def read(cls, document: Any, names: ModelNames) -> Self:
        return cls(MessagesRequest.read(document))

    def not_begun(self, error: HttpError) -> bytes:
        return b"event: error\ndata: " + error_body(error) + b"\n\n"

    def stream(self, prepared: PreparedRequest) -> StreamWriter:
        return MessageStream(prepared)

    def whole(self, prepared: PreparedRequest, answers: list[Answer], totals: Totals) -> bytes:
        (answer,) = answers
        content = _content(pieces(prepared.parser(0), answer.deltas), prepared)
        message = head(prepared) | {"content": content} | stopped(answer.deltas[-1], prepared, totals)
        return orjson.dumps(message | {"usage": usage(totals)})


def _content(parts: list[Piece], prepared: PreparedRequest) -> list[dict[str, Any]]:
    """The blocks of a whole answer. A call that was cut off is none."""
    blocks: list[dict[str, Any]] = []
    kinds = {"content": ("text", "text"), "reasoning": ("thinking", "thinking"), "call": ("tool_use", "input")}
    kinds["arguments"] = kinds["call"]
    for piece in parts:
        name, key = kinds[piece.kind]
        if piece.kind == "call":
            blocks.append({"type": name, "id": prepared.call_id(0, piece.call), "name": piece.text, key: ""})
            continue
        if not blocks or blocks[-1]["type"] != name:
            blocks.append({"type": name, key: ""} | ({"signature": ""} if name == "thinking" else {}))
        blocks[-1][key] += piece.text
    return [block for block in blocks if block["type"] != "tool_use" or _read_input(block)]


def _read_input(block: dict[str, Any]) -> bool:
    """Makes an object of a call's arguments; whether they are one."""
    try:
        block["input"] = orjson.loads(block["input"])
    except orjson.JSONDecodeError:
        return False
    return isinstance(block["input"], dict)


async def count_tokens(request: Request) -> HTTPResponse:
    """What a prompt takes, without asking the model."""
    service: Service = request.app.ctx.service
    async with HeldBody(request) as body, model_of(service, body.data, request) as served:
        asked = await in_thread(service, _read_count, body.data, served)
        pictures = await service.pictures.prepare(asked.images, served, cache_salt_of(request, None))
        ids, *_ = await in_thread(service, seen_conversation, asked.without_sources(), served, pictures)
    return json_response({"input_tokens": len(ids)})


def _read_count(body: bytes, served: ServedModel) -> GenerationSpec:
    request = CountRequest.read(parse_json(body))
    served.limits.names.check(request.model)
    return spec(request)

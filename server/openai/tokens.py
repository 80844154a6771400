"""POST /tokenize and POST /detokenize: what the model reads, without asking it."""

from __future__ import annotations

from typing import Any

import orjson
from sanic.request import Request
from sanic.response import HTTPResponse

from ..http.access import cache_salt_of
from ..http.request_body import parse_json
from ..http.routing import JSON
from ..schema.tools import chat_tools
from ..serving.engine_service import Service
from ..serving.generation_spec import FieldNames, GenerationSpec
from ..serving.handler import HeldBody, in_thread, model_of, take_body
from ..serving.pictures import Pictures
from ..serving.prompts import check_tokens, seen_conversation
from ..serving.served_model import ServedModel
from .messages import neutral_messages
from .tokens_request import DetokenizeRequest, TokenizeRequest


async def tokenize(request: Request) -> HTTPResponse:
    """Ids of a text, or of a conversation with the pictures in it."""
    service: Service = request.app.ctx.service
    async with HeldBody(request) as body, model_of(service, body.data, request) as served:
        asked, spec = await in_thread(service, _read, body.data, served)
        pictures = await service.pictures.prepare(spec.images, served, cache_salt_of(request, None))
        document = await in_thread(service, lambda: orjson.dumps(_tokenized(asked, spec, served, pictures)))
    return HTTPResponse(document, content_type=JSON)


async def detokenize(request: Request) -> HTTPResponse:
    """The text of ids."""
    service: Service = request.app.ctx.service
    body = await take_body(request)
    async with model_of(service, body, request) as served:
        document = await in_thread(service, lambda: orjson.dumps(_detokenized(parse_json(body), served)))
    return HTTPResponse(document, content_type=JSON)


def _read(body: bytes, served: ServedModel) -> tuple[TokenizeRequest, GenerationSpec]:
    request = TokenizeRequest.read(parse_json(body))
    served.limits.names.check(request.model)
    return request, _spec(request)


def _tokenized(
    request: TokenizeRequest, spec: GenerationSpec, served: ServedModel, pictures: Pictures
) -> dict[str, Any]:
    text = served.engine.text
    if request.messages is not None:
        ids = seen_conversation(spec.without_sources(), served, pictures)[0]
    else:
        ids = (text.begin if request.begins else []) + text.encode(
            request.text or "", control=bool(request.parse_special)
        )
    answer: dict[str, Any] = {"tokens": ids, "count": len(ids), "max_model_len": served.limits.context_length}
    if request.return_token_strs:
        answer["token_strs"] = [text.id_to_text(token) for token in ids]
    if request.with_pieces:
        answer["tokens"] = [{"id": token, "piece": _piece(text.token_bytes(token))} for token in ids]
    return answer


def _spec(request: TokenizeRequest) -> GenerationSpec:
    """A conversation as chat completions asks for it."""
    thinking, budget, field = request.asked_thinking()
    messages, tools = neutral_messages(request.messages or ()), chat_tools(request.tools, None, None)
    names = FieldNames(thinking=field)
    return GenerationSpec(messages=messages, tools=tools, thinking=thinking, thinking_budget=budget, names=names)


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


def _detokenized(document: Any, served: ServedModel) -> dict[str, Any]:
    request = DetokenizeRequest.read(document)
    served.limits.names.check(request.model)
    check_tokens(request.tokens, "tokens", served.limits.vocab_size)
    text = served.engine.text.decode(request.tokens, skip_special_tokens=False)
    return {"prompt": text, "content": text}

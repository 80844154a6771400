"""POST /tokenize and POST /detokenize: what the model reads, without asking it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from sanic.request import Request
from sanic.response import HTTPResponse

from ..http.request_body import parse_json
from ..http.routing import JSON, Handler
from ..schema.tools import chat_tools
from ..serving.engine_service import Service
from ..serving.generation_spec import FieldNames, GenerationSpec
from ..serving.handler import in_thread, model_of, take_body
from ..serving.prompts import check_tokens
from ..serving.served_model import ServedModel
from .messages import neutral_messages
from .tokens_request import DetokenizeRequest, TokenizeRequest


def _handler(work: Callable[[Any, ServedModel], dict[str, Any]]) -> Handler:
    """Answers with what `work` makes of the request's JSON, in a thread."""

    async def handler(request: Request) -> HTTPResponse:
        service: Service = request.app.ctx.service
        body = await take_body(request)
        async with model_of(service, body, request) as served:
            document = await in_thread(service, lambda: orjson.dumps(work(parse_json(body), served)))
        return HTTPResponse(document, content_type=JSON)

    return handler


def _tokenize(document: Any, served: ServedModel) -> dict[str, Any]:
    request = TokenizeRequest.read(document)
    served.limits.names.check(request.model)
    text = served.engine.text
    if request.messages is not None:
        ids = served.chat_format.prompt(_spec(request))[0]
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


def _detokenize(document: Any, served: ServedModel) -> dict[str, Any]:
    request = DetokenizeRequest.read(document)
    served.limits.names.check(request.model)
    check_tokens(request.tokens, "tokens", served.limits.vocab_size)
    text = served.engine.text.decode(request.tokens, skip_special_tokens=False)
    return {"prompt": text, "content": text}


tokenize, detokenize = _handler(_tokenize), _handler(_detokenize)

"""POST /tokenize and POST /detokenize: what the model reads, without asking it. And the refusal of embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from sanic import Blueprint
from sanic.request import Request
from sanic.response import HTTPResponse

from ..http.errors import HttpError
from ..http.request_body import parse_json
from ..schema.tools import chat_tools
from ..serving.engine_service import Service
from ..serving.generation_spec import GenerationSpec
from ..serving.handler import in_thread, refuse, take_body
from ..serving.input_processor import Served, check_model
from ..serving.prompts import check_tokens
from .chat import ChatDialect
from .messages import neutral_messages
from .tokens_request import DetokenizeRequest, TokenizeRequest

tokens = Blueprint("tokens")


@tokens.post("/tokenize", stream=True)
async def tokenize(request: Request) -> HTTPResponse | None:
    """Ids of a text or a conversation."""
    return await _answer(request, _tokenize)


@tokens.post("/detokenize", stream=True)
async def detokenize(request: Request) -> HTTPResponse | None:
    """The text of ids, control tokens by name."""
    return await _answer(request, _detokenize)


@tokens.post("/v1/embeddings", stream=True, name="embeddings")
@tokens.post("/openai/v1/embeddings", stream=True, name="azure_embeddings")
@tokens.post("/openai/deployments/<deployment:str>/embeddings", stream=True, name="deployment_embeddings")
async def refuse_embeddings(request: Request, deployment: str = "") -> HTTPResponse | None:
    """There are none."""
    return await refuse(request, ChatDialect, no_embeddings())


def no_embeddings() -> HttpError:
    """What whoever asks for embeddings is told."""
    text = "This server makes no embeddings: a card holds one model here, and it generates text."
    return HttpError(400, text, code="unsupported")


async def _answer(request: Request, work: Callable[[Any, Served], dict[str, Any]]) -> HTTPResponse | None:
    service: Service = request.app.ctx.service
    try:
        body = await take_body(request)
        document = await in_thread(service, lambda: orjson.dumps(work(parse_json(body), service.ready())))
    except Exception as exc:
        return await refuse(request, ChatDialect, exc)
    return HTTPResponse(document, content_type="application/json")


def _tokenize(document: Any, served: Served) -> dict[str, Any]:
    asked = TokenizeRequest.read(document)
    check_model(asked.model, served.limits)
    text = served.engine.text
    if asked.messages is not None:
        ids = served.chat_format.prompt(_ask(asked))[0]
    else:
        ids = (text.begin if asked.begins else []) + text.encode(asked.text or "", control=bool(asked.parse_special))
    answer: dict[str, Any] = {"tokens": ids, "count": len(ids), "max_model_len": served.limits.context_length}
    if asked.return_token_strs:
        answer["token_strs"] = [text.id_to_text(one) for one in ids]
    if asked.with_pieces:
        answer["tokens"] = [{"id": one, "piece": _piece(text.token_bytes(one))} for one in ids]
    return answer


def _ask(asked: TokenizeRequest) -> GenerationSpec:
    """A conversation as chat completions asks for it."""
    thinking, budget, field = asked.asked_thinking()
    messages, tools = neutral_messages(asked.messages or ()), chat_tools(asked.tools, None, None)
    return GenerationSpec(
        messages=messages, tools=tools, thinking=thinking, thinking_budget=budget, thinking_field=field
    )


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


def _detokenize(document: Any, served: Served) -> dict[str, Any]:
    asked = DetokenizeRequest.read(document)
    check_model(asked.model, served.limits)
    check_tokens(asked.tokens, "tokens", served.limits.vocab_size)
    text = served.engine.text.decode(asked.tokens, skip_special_tokens=False)
    return {"prompt": text, "content": text}

"""OpenAI's rows of the route table, and the same under Azure's paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..http.routing import Route, Stream
from ..serving.handler import answers
from . import replies
from .azure import azure, of_deployment
from .chat import ChatDialect
from .chat_request import ChatRequest
from .completions import CompletionDialect
from .completions_request import CompletionRequest
from .embeddings import EmbeddingDialect, EmbeddingRequest
from .models import get_model, list_models
from .responses import ResponsesDialect, not_stored
from .responses_replies import Response, ResponsesEvent
from .responses_request import ResponsesRequest
from .tokens import detokenize, tokenize
from .tokens_request import DetokenizeRequest, TokenizeRequest

NO_MODEL = "The model that the request names is not served here."


def _openai(path: str, summary: str, **fields: Any) -> Route:
    return Route(path=path, group="OpenAI", summary=summary, **fields)


def _stored(path: str, group: str) -> tuple[Route, Route]:
    """What a client with a store asks for."""
    summary, no_response = "Refused: nothing is stored", "Nothing is stored here."
    get = Route(
        method="GET", path=path, handler=not_stored, group=group, summary=summary, refuses=404, not_found=no_response
    )
    return get, replace(get, method="DELETE")


CHAT = _openai(
    "/v1/chat/completions", "Answer a conversation",
    method="POST", handler=answers(ChatDialect.read), request=ChatRequest, reply=replies.ChatCompletion,
    stream=Stream(replies.ChatChunk, done="[DONE]"), not_found=NO_MODEL,
    example={"messages": [{"role": "user", "content": "What is 7 + 5?"}]},
)  # fmt: skip
COMPLETIONS = _openai(
    "/v1/completions", "Go on from prompts",
    method="POST", handler=answers(CompletionDialect.read), request=CompletionRequest, reply=replies.TextCompletion,
    stream=Stream(replies.TextChunk, done="[DONE]"), not_found=NO_MODEL,
    example={"prompt": "What is", "max_tokens": 8},
)  # fmt: skip
RESPONSES = _openai(
    "/v1/responses", "Answer a conversation, item by item",
    method="POST", handler=answers(ResponsesDialect.read), request=ResponsesRequest, reply=Response,
    stream=Stream(ResponsesEvent), not_found=NO_MODEL,
    example={"input": "What is 7 + 5?"},
)  # fmt: skip
EMBEDDINGS = _openai(
    "/v1/embeddings", "Embed texts",
    method="POST", handler=answers(EmbeddingDialect.read), request=EmbeddingRequest, reply=replies.EmbeddingList,
    not_found=NO_MODEL, example={"input": "What is 7 + 5?"}, embeds=True,
)  # fmt: skip
MODELS = _openai("/v1/models", "The served model", method="GET", handler=list_models, reply=replies.ModelList)
MODEL = _openai(
    "/v1/models/{name}", "A model by its name",
    method="GET", handler=get_model, reply=replies.ModelCard, not_found=NO_MODEL, slashes=True,
)  # fmt: skip
TOKENIZE = Route(
    method="POST", path="/tokenize", handler=tokenize, group="Tokens", summary="Ids of a text or a conversation",
    request=TokenizeRequest, reply=replies.Tokenized, not_found=NO_MODEL, example={"prompt": "What is 7 + 5?"},
)  # fmt: skip
DETOKENIZE = Route(
    method="POST", path="/detokenize", handler=detokenize, group="Tokens", summary="The text of ids",
    request=DetokenizeRequest, reply=replies.Detokenized, not_found=NO_MODEL, example={"tokens": [1, 2, 3]},
)  # fmt: skip

DEPLOYMENT = "/openai/deployments/{deployment}"
AZURE: tuple[Route, ...] = (
    *azure(CHAT, of_deployment(ChatDialect), f"{DEPLOYMENT}/chat/completions", "/openai/v1/chat/completions"),
    *azure(COMPLETIONS, of_deployment(CompletionDialect), f"{DEPLOYMENT}/completions", "/openai/v1/completions"),
    *azure(RESPONSES, of_deployment(ResponsesDialect), "/openai/responses", "/openai/v1/responses"),
    *_stored("/openai/responses/{name}", "Azure"),
    *_stored("/openai/v1/responses/{name}", "Azure"),
    *azure(EMBEDDINGS, of_deployment(EmbeddingDialect), f"{DEPLOYMENT}/embeddings", "/openai/v1/embeddings"),
    *azure(MODELS, MODELS.handler, "/openai/models", "/openai/v1/models"),
)
ROUTES: tuple[Route, ...] = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    *_stored("/v1/responses/{name}", "OpenAI"),
    EMBEDDINGS,
    MODELS,
    MODEL,
    TOKENIZE,
    DETOKENIZE,
    *AZURE,
)

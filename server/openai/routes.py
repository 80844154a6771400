"""OpenAI's rows of the route table, and the same under Azure's paths."""

from __future__ import annotations

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
from .rerank import RerankDialect, RerankRequest
from .responses import ResponsesDialect, responds
from .responses_replies import Response, ResponsesEvent
from .responses_request import ResponsesRequest
from .stored_responses import DeletedResponse, InputItems, delete_response, get_response, list_input_items
from .tokens import detokenize, tokenize
from .tokens_request import DetokenizeRequest, TokenizeRequest

NO_MODEL = "The model that the request names is not served here."
NO_RESPONSE = "There is no such response, or nothing is stored here (axpress serve --store-responses FILE)."


def _openai(path: str, summary: str, **fields: Any) -> Route:
    return Route(path=path, group="OpenAI", summary=summary, **fields)


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
    method="POST", handler=responds(ResponsesDialect.read), request=ResponsesRequest, reply=Response,
    stream=Stream(ResponsesEvent), not_found=NO_MODEL,
    example={"input": "What is 7 + 5?"},
)  # fmt: skip
STORED = "/v1/responses/{name}"
STORED_RESPONSE = _openai(
    STORED, "A stored response",
    method="GET", handler=get_response, reply=Response, not_found=NO_RESPONSE, query=("stream",),
)  # fmt: skip
DELETE_RESPONSE = _openai(
    STORED, "Forget a stored response",
    method="DELETE", handler=delete_response, reply=DeletedResponse, not_found=NO_RESPONSE,
)  # fmt: skip
RESPONSE_ITEMS = _openai(
    f"{STORED}/input_items", "What a stored response was made from",
    method="GET", handler=list_input_items, reply=InputItems, not_found=NO_RESPONSE, query=("order", "after", "limit"),
)  # fmt: skip
EMBEDDINGS = _openai(
    "/v1/embeddings", "Embed texts",
    method="POST", handler=answers(EmbeddingDialect.read), request=EmbeddingRequest, reply=replies.EmbeddingList,
    not_found=NO_MODEL, example={"input": "What is 7 + 5?"}, embeds=True,
)  # fmt: skip
RERANK: tuple[Route, ...] = tuple(
    Route(
        method="POST", path=path, group="Rerank", summary="Rank documents by how well they meet a query",
        handler=answers(RerankDialect.read), request=RerankRequest, reply=replies.RerankReply,
        not_found=NO_MODEL, reranks=True, example={"query": "What is 7 + 5?", "documents": ["12", "Spring is near."]},
    )
    for path in ("/v1/rerank", "/rerank", "/v2/rerank")
)  # fmt: skip
MODELS = _openai(
    "/v1/models", "The models that can be asked for", method="GET", handler=list_models, reply=replies.ModelList
)
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
    *azure(CHAT, answers(of_deployment(ChatDialect)), f"{DEPLOYMENT}/chat/completions", "/openai/v1/chat/completions"),
    *azure(
        COMPLETIONS, answers(of_deployment(CompletionDialect)), f"{DEPLOYMENT}/completions", "/openai/v1/completions"
    ),
    *azure(RESPONSES, responds(of_deployment(ResponsesDialect)), "/openai/responses", "/openai/v1/responses"),
    *(
        row
        for route in (STORED_RESPONSE, DELETE_RESPONSE, RESPONSE_ITEMS)
        for row in azure(route, route.handler, f"/openai{route.path.removeprefix('/v1')}", f"/openai{route.path}")
    ),
    *azure(EMBEDDINGS, answers(of_deployment(EmbeddingDialect)), f"{DEPLOYMENT}/embeddings", "/openai/v1/embeddings"),
    *azure(MODELS, MODELS.handler, "/openai/models", "/openai/v1/models"),
)
ROUTES: tuple[Route, ...] = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    STORED_RESPONSE,
    DELETE_RESPONSE,
    RESPONSE_ITEMS,
    EMBEDDINGS,
    *RERANK,
    MODELS,
    MODEL,
    TOKENIZE,
    DETOKENIZE,
    *AZURE,
)

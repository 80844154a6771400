"""Every route of the server in one table: what it takes and what it answers, for the OpenAPI document, its page and the
tests.

The table says, the blueprints do; tests/server/docs/test_openapi.py asserts that both know the same
routes, and that answers are as told here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from sanic import Blueprint

from ..ollama import replies as ollama_replies
from ..ollama.requests import OllamaChatRequest, OllamaGenerateRequest, OllamaShowRequest
from ..openai import replies, responses_replies
from ..openai.chat_request import ChatRequest
from ..openai.completions_request import CompletionRequest
from ..openai.responses_request import ResponsesRequest
from ..openai.tokens_request import DetokenizeRequest, TokenizeRequest
from ..schema.fields import RequestFields

Method = Literal["GET", "HEAD", "POST", "DELETE"]
EVENTS: Literal["text/event-stream"] = "text/event-stream"
LINES: Literal["application/x-ndjson"] = "application/x-ndjson"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer in pieces: server-sent events, whose data is one of `event` each, or lines of JSON. `done`: how the
    last one reads."""

    event: Any
    content_type: Literal["text/event-stream", "application/x-ndjson"] = EVENTS
    done: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path and a method; `path` as OpenAPI writes it (/v1/models/{model}).

    `request`: the class that reads its JSON body. `reply`: type of the JSON in a 200; or `content`: the content types
    of a 200 that is no JSON. `stream`: what comes where the request asks for a stream, or always where there is no
    `reply`. `error`: type of its errors. `others`: type of the JSON in answers with these statuses, where it is no
    error. `not_found`: what a 404 means, for routes that have one. `open`: answered without an API key."""

    method: Method
    path: str
    group: str
    summary: str
    request: type[RequestFields] | None = None
    reply: Any = None
    content: tuple[str, ...] = ()
    stream: Stream | None = None
    error: Any = replies.Error
    others: tuple[tuple[int, Any], ...] = ()
    not_found: str | None = None
    open: bool = False
    busy: bool = False
    """May answer 429 although it takes no body."""
    refuses: int = 0
    """The status of all its answers, where it is there only to tell clients of other servers why something cannot
    be."""
    query: tuple[str, ...] = ()
    """Parameters that clients send and nobody reads."""
    example: Any = None
    """A request that works on every server."""
    note: str = ""
    """More than the summary, for whoever reads on."""


CHANGES: tuple[tuple[Method, str], ...] = (
    ("POST", "create"), ("POST", "copy"), ("DELETE", "delete"), ("POST", "pull"), ("POST", "push"),
    ("POST", "blobs/{digest}"), ("HEAD", "blobs/{digest}"),
)  # fmt: skip
"""What changes the models of an Ollama server."""
NO_MODEL = "The model that the request names is not served here."
DURATIONS = (
    "The durations of an emulated card are not those of one, and Ollama's answers have no word for that: `/health` says"
    " `emulated`."
)
NO_RESPONSE = "Nothing is stored here."
NO_FILE = "There is no such file."
PAGE_FILES = ("text/html", "text/css", "text/javascript", "image/svg+xml")


def reads(blueprint: Blueprint, path: str, name: str | None = None) -> Any:
    """Decorator of a handler of GET and of HEAD, which is answered in the same way, but that Sanic leaves the body
    out."""
    return blueprint.route(path, methods=("GET", "HEAD"), name=name, ignore_body=True)


def _page(path: str, summary: str, **fields: Any) -> Route:
    """A file of the page."""
    return Route(method="GET", path=path, group="Pages", summary=summary, open=True, **fields)


def _ollama(method: Method, path: str, summary: str, **fields: Any) -> Route:
    """A route of Ollama's API, whose errors have Ollama's shape."""
    return Route(method=method, path=path, group="Ollama", summary=summary, error=ollama_replies.OllamaError, **fields)


def _azure(path: str, route: Route) -> Route:
    """A route under Azure's path: whatever the deployment is called, the served model answers."""
    return replace(route, path=path, group="Azure", not_found=None, query=("api-version",))


def _not_stored(path: str, group: str) -> tuple[Route, Route]:
    """What a client with a store asks for."""
    get = Route(
        method="GET", path=path, group=group, summary="Refused: nothing is stored", refuses=404, not_found=NO_RESPONSE
    )
    return get, replace(get, method="DELETE")


# fmt: off
CHAT = Route(
    method="POST", path="/v1/chat/completions", group="OpenAI", summary="Answer a conversation", request=ChatRequest,
    reply=replies.ChatCompletion, stream=Stream(replies.ChatChunk, done="[DONE]"), not_found=NO_MODEL,
    example={"messages": [{"role": "user", "content": "What is 7 + 5?"}]},
)
COMPLETIONS = Route(
    method="POST", path="/v1/completions", group="OpenAI", summary="Go on from prompts", request=CompletionRequest,
    reply=replies.TextCompletion, stream=Stream(replies.TextChunk, done="[DONE]"), not_found=NO_MODEL,
    example={"prompt": "What is", "max_tokens": 8},
)
RESPONSES = Route(
    method="POST", path="/v1/responses", group="OpenAI", summary="Answer a conversation, item by item",
    request=ResponsesRequest,
    reply=responses_replies.Response, stream=Stream(responses_replies.ResponsesEvent), not_found=NO_MODEL,
    example={"input": "What is 7 + 5?"},
)
EMBEDDINGS = Route(method="POST", path="/v1/embeddings", group="OpenAI", summary="Refused: no embeddings here",
refuses=400)
MODELS = Route(method="GET", path="/v1/models", group="OpenAI", summary="The served model", reply=replies.ModelList)
# fmt: on

_TABLE: tuple[Route, ...] = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    *_not_stored("/v1/responses/{name}", "OpenAI"),
    EMBEDDINGS,
    MODELS,
    Route(
        method="GET", path="/v1/models/{name}", group="OpenAI", summary="A model by its name", reply=replies.ModelCard,
        not_found=NO_MODEL,
    ),
    Route(
        method="POST", path="/tokenize", group="Tokens", summary="Ids of a text or a conversation",
        request=TokenizeRequest,
        reply=replies.Tokenized, not_found=NO_MODEL, example={"prompt": "What is 7 + 5?"},
    ),
    Route(
        method="POST", path="/detokenize", group="Tokens", summary="The text of ids", request=DetokenizeRequest,
        reply=replies.Detokenized, not_found=NO_MODEL, example={"tokens": [1, 2, 3]},
    ),
    _ollama(
        "POST", "/api/chat", "Answer a conversation", request=OllamaChatRequest, reply=ollama_replies.OllamaChatReply,
        stream=Stream(ollama_replies.OllamaChatReply, LINES), not_found=NO_MODEL, note=DURATIONS,
        example={"model": "default", "messages": [{"role": "user", "content": "What is 7 + 5?"}]},
    ),
    _ollama(
        "POST", "/api/generate", "Answer a prompt", request=OllamaGenerateRequest,
        reply=ollama_replies.OllamaGenerateReply,
        stream=Stream(ollama_replies.OllamaGenerateReply, LINES), not_found=NO_MODEL, note=DURATIONS,
        example={"model": "default", "prompt": "What is 7 + 5?"},
    ),
    _ollama("GET", "/api/tags", "The served model", reply=ollama_replies.OllamaModels),
    _ollama("GET", "/api/ps", "The model on the card", reply=ollama_replies.OllamaLoadedModels),
    _ollama(
        "POST", "/api/show", "What is known of the model", request=OllamaShowRequest, reply=ollama_replies.OllamaShown,
        not_found=NO_MODEL, example={"model": "default"},
    ),
    _ollama("GET", "/api/version", "The version of Ollama whose API this is", reply=ollama_replies.OllamaVersion),
    *(_ollama("POST", f"/api/{name}", "Refused: no embeddings here", refuses=400) for name in ("embed", "embeddings")),
    *(_ollama(method, f"/api/{name}", "Refused: the server has the model it was started with", refuses=400) for method,
    name in CHANGES),
    *(_azure(path, CHAT) for path in ("/openai/deployments/{deployment}/chat/completions",
    "/openai/v1/chat/completions")),
    *(_azure(path, COMPLETIONS) for path in ("/openai/deployments/{deployment}/completions", "/openai/v1/completions")),
    *(_azure(path, RESPONSES) for path in ("/openai/responses", "/openai/v1/responses")),
    *(one for path in ("/openai/responses/{name}", "/openai/v1/responses/{name}") for one in _not_stored(path,
    "Azure")),
    *(_azure(path, EMBEDDINGS) for path in ("/openai/deployments/{deployment}/embeddings", "/openai/v1/embeddings")),
    *(_azure(path, MODELS) for path in ("/openai/models", "/openai/v1/models")),
    Route(
        method="GET", path="/health", group="Server", summary="Whether a token can be had", reply=replies.Health,
        others=((503, replies.Health),), open=True,
    ),
    Route(method="GET", path="/openapi.json", group="Server", summary="This document", reply=dict[str, Any], open=True),
    Route(method="GET", path="/live", group="Server", summary="What the card is doing", reply=replies.Live),
    Route(
        method="GET", path="/live/stream", group="Server", summary="The same again and again, while it changes",
        stream=Stream(replies.Live), busy=True,
    ),
    _page("/docs", "This document, for people", content=("text/html",)),
    _page("/", "A page to chat and to watch the card", content=("text/html",)),
    _page("/page/{name}", "A file of the page", content=PAGE_FILES, not_found=NO_FILE),
)  # fmt: skip

HEADS = tuple(
    replace(route, method="HEAD", summary="As GET, without the body") for route in _TABLE if route.method == "GET"
)
"""For monitors."""
ROUTES: tuple[Route, ...] = (*_TABLE, *HEADS)

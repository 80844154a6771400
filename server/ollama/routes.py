"""Ollama's rows of the route table."""

from __future__ import annotations

from typing import Any

from ..http.routing import JSON, LINES, Handler, Method, Route, Stream
from ..serving.handler import answers, refuses
from . import replies
from .changes import OllamaDeleteRequest, OllamaPullRequest, delete_model, pull_model
from .dialect import OllamaChat, OllamaGenerate
from .embeddings import OllamaEmbed, OllamaEmbeddings, OllamaEmbeddingsRequest, OllamaEmbedRequest
from .errors import OLLAMA_ERRORS
from .models import get_version, list_loaded, list_tags, no_changes, show
from .requests import OllamaChatRequest, OllamaGenerateRequest, OllamaShowRequest

CHANGES: tuple[tuple[Method, str], ...] = (
    ("POST", "create"), ("POST", "copy"), ("POST", "push"),
    ("POST", "blobs/{digest}"), ("HEAD", "blobs/{digest}"),
)  # fmt: skip
"""What else changes the models of an Ollama server."""
NO_MODEL = "The model that the request names is not served here."
DURATIONS = (
    "The durations of an emulated card are not those of one, and Ollama's answers have no word for that: `/health` says"
    " `emulated`."
)
REFUSED_CHANGE = "Refused: models are not made, copied or pushed here"
RIGHT = (
    "Where models come and go (`axpress serve --models`), for an API key with that right: a line `NAME:KEY models` of"
    " the key file. Others are refused with 403, on a server whose models are fixed with 400."
)
refuse_change = refuses(no_changes)


def _ollama(method: Method, name: str, handler: Handler, summary: str, **fields: Any) -> Route:
    return Route(
        method=method, path=f"/api/{name}", handler=handler, group="Ollama", summary=summary, error=OLLAMA_ERRORS,
        **fields,
    )  # fmt: skip


ROUTES: tuple[Route, ...] = (
    _ollama(
        "POST", "chat", answers(OllamaChat.read, any_content_type=True), "Answer a conversation",
        request=OllamaChatRequest, reply=replies.OllamaChatReply, stream=Stream(replies.OllamaChatReply, LINES),
        not_found=NO_MODEL, note=DURATIONS,
        example={"model": "default", "messages": [{"role": "user", "content": "What is 7 + 5?"}]},
    ),
    _ollama(
        "POST", "generate", answers(OllamaGenerate.read, any_content_type=True), "Answer a prompt",
        request=OllamaGenerateRequest, reply=replies.OllamaGenerateReply,
        stream=Stream(replies.OllamaGenerateReply, LINES), not_found=NO_MODEL, note=DURATIONS,
        example={"model": "default", "prompt": "What is 7 + 5?"},
    ),
    _ollama("GET", "tags", list_tags, "The models that can be asked for", reply=replies.OllamaModels),
    _ollama("GET", "ps", list_loaded, "The models on the card", reply=replies.OllamaLoadedModels),
    _ollama(
        "POST", "show", show, "What is known of a model", request=OllamaShowRequest, reply=replies.OllamaShown,
        not_found=NO_MODEL, example={"model": "default"},
    ),
    _ollama(
        "GET", "version", get_version, "The version of Ollama whose API this is", reply=replies.OllamaVersion
    ),
    _ollama(
        "POST", "embed", answers(OllamaEmbed.read, any_content_type=True), "Embed texts",
        request=OllamaEmbedRequest, reply=replies.OllamaEmbedReply, not_found=NO_MODEL, note=DURATIONS, embeds=True,
        example={"model": "default", "input": "What is 7 + 5?"},
    ),
    _ollama(
        "POST", "embeddings", answers(OllamaEmbeddings.read, any_content_type=True), "Embed a text",
        request=OllamaEmbeddingsRequest, reply=replies.OllamaEmbeddingsReply, not_found=NO_MODEL, embeds=True,
        example={"model": "default", "prompt": "What is 7 + 5?"},
    ),
    _ollama(
        "POST", "pull", pull_model, "Fetch a model into the models directory", request=OllamaPullRequest,
        reply=replies.OllamaStatus, stream=Stream(replies.OllamaStatus, LINES), note=RIGHT, changes=True,
        example={"model": "smollm2-135m"},
    ),
    _ollama(
        "DELETE", "delete", delete_model, "Remove a model from the models directory", request=OllamaDeleteRequest,
        content=(JSON,), note=RIGHT, changes=True, not_found=NO_MODEL, example={"model": "smollm2-135m"},
    ),
    *(_ollama(method, name, refuse_change, REFUSED_CHANGE, refuses=400) for method, name in CHANGES),
)  # fmt: skip

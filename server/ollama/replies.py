"""What is answered in Ollama's API: the JSON of answers, of their lines in a stream, and of errors."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..http.replies import Count, closed
from ..schema.logprobs import TokenLogprob


@closed
class OllamaError(TypedDict):
    """An error, as an answer of its own or as the last line of a stream."""

    error: str
    """What was wrong, where, and what to do."""


@closed
class OllamaFunctionCall(TypedDict):
    """A function and its arguments, which match its parameters' schema."""

    index: Count
    name: str
    arguments: dict[str, Any]


@closed
class OllamaToolCall(TypedDict):
    """A call of a function: always a whole one. One that the answer's end cut off is not told."""

    id: str
    function: OllamaFunctionCall


@closed
class OllamaAnswerMessage(TypedDict):
    """A piece of the answer; where nothing is streamed, all of it."""

    role: Literal["assistant"]
    content: str
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[OllamaToolCall]]


class _Head(TypedDict):
    model: str
    """As the request named it."""
    created_at: str
    done: bool


class _Last(TypedDict):
    """What comes with done: true. Durations in nanoseconds."""

    done_reason: NotRequired[Literal["stop", "length", "load", "unload"]]
    """load, unload: there was no prompt, so nothing to answer."""
    total_duration: NotRequired[Count]
    """Since the request was taken in. What the others do not sum up to was spent waiting for others."""
    load_duration: NotRequired[Count]
    """0: the model is loaded when the server starts."""
    prompt_eval_count: NotRequired[Count]
    """All tokens of the prompt, those found in the cache included."""
    prompt_eval_duration: NotRequired[Count]
    """From the first pass to the first token."""
    eval_count: NotRequired[Count]
    eval_duration: NotRequired[Count]
    """From the first token to the last."""


@closed
class OllamaChatReply(_Head, _Last):
    """A line of a streamed chat answer, or the whole of it."""

    message: OllamaAnswerMessage
    logprobs: NotRequired[list[TokenLogprob]]


@closed
class OllamaGenerateReply(_Head, _Last):
    """A line of a streamed completion, or the whole of it. There is no `context`: conversations go to /api/chat."""

    response: str
    thinking: NotRequired[str]
    logprobs: NotRequired[list[TokenLogprob]]


@closed
class OllamaEmbedReply(TypedDict):
    """The vectors, of length 1, in the order of the inputs; none where there was no input."""

    model: str
    embeddings: list[list[float]]
    total_duration: NotRequired[Count]
    load_duration: NotRequired[Count]
    prompt_eval_count: NotRequired[Count]
    """Tokens of all inputs, their end tokens included."""


@closed
class OllamaEmbeddingsReply(TypedDict):
    """The vector, of length 1; empty where there was no prompt."""

    embedding: list[float]


@closed
class OllamaDetails(TypedDict):
    """What kind of model it is. Empty: not known."""

    parent_model: str
    format: Literal["axmodel"]
    family: str
    families: list[str]
    parameter_size: str
    """Where the model's name tells it."""
    quantization_level: str


class _Model(TypedDict):
    name: str
    model: str
    size: Count
    """Bytes of the model's files."""
    digest: str
    """Changes when anything that can change an answer does; not a hash of the files' contents."""
    details: OllamaDetails


@closed
class OllamaModel(_Model):
    """A model that can be asked for."""

    modified_at: str


@closed
class OllamaModels(TypedDict):
    """The models that can be asked for; none while they are loading."""

    models: list[OllamaModel]


@closed
class OllamaLoadedModel(_Model):
    """A model on the card."""

    size_vram: Count
    """Bytes of the card's memory that layers and head are expected to take."""
    context_length: Count
    expires_at: str
    """Far in the future for one that stays as long as the server runs."""


@closed
class OllamaLoadedModels(TypedDict):
    """Those on the card."""

    models: list[OllamaLoadedModel]


@closed
class OllamaShown(TypedDict):
    """What is known of a model; less of one that is not on the card."""

    modified_at: str
    details: OllamaDetails
    parameters: str
    """The model's own sampling defaults, one in a line."""
    model_info: dict[str, Any]
    capabilities: list[Literal["completion", "tools", "vision", "thinking", "embedding"]]


@closed
class OllamaStatus(TypedDict):
    """How far a pull is; "success" at its end."""

    status: str
    digest: NotRequired[str]
    total: NotRequired[Count]
    """Bytes to fetch, as far as is known."""
    completed: NotRequired[Count]


@closed
class OllamaVersion(TypedDict):
    """The version of Ollama whose API this is, and after a dash who speaks it."""

    version: str

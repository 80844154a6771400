"""What OpenAI's dialect answers: the JSON of answers and stream events, as the writers write it, for the OpenAPI
document and the tests."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from ..http.replies import Count, Seconds, closed
from ..schema.logprobs import Byte, LogprobValue, TokenLogprob


@closed
class PromptDetails(TypedDict):
    """Where the prompt's tokens came from."""

    cached_tokens: Count
    """Found in the cache, so computed by nobody anew."""


@closed
class CompletionDetails(TypedDict):
    """What the completion's tokens were."""

    reasoning_tokens: Count
    accepted_prediction_tokens: Count
    rejected_prediction_tokens: Count
    """Tried and thrown away; not among the completion's tokens."""


@closed
class Usage(TypedDict):
    """Tokens of a whole request: its prompt once, and all its answers."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


@closed
class Timings(TypedDict):
    """Counts, milliseconds and tokens/s of prompt and answer, queueing left out; a rate is null where no time
    passed."""

    cache_n: Count
    prompt_n: int
    prompt_ms: Seconds
    prompt_per_second: float | None
    predicted_n: Count
    predicted_ms: Seconds
    predicted_per_second: float | None
    emulated: NotRequired[Literal[True]]
    """There is no card: times are modelled, or those of the emulator."""


@closed
class Logprobs(TypedDict):
    """Log-probabilities of the answer's tokens."""

    content: list[TokenLogprob]
    refusal: None


@closed
class AnswerFunction(TypedDict):
    """The function and its arguments, which are JSON as text."""

    name: str
    arguments: str


@closed
class AnswerToolCall(TypedDict):
    """A function that the model calls."""

    id: str
    type: Literal["function"]
    function: AnswerFunction


@closed
class AnswerMessage(TypedDict):
    """The model's message."""

    role: Literal["assistant"]
    content: str | None
    """null where there are calls and nothing else."""
    refusal: None
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[AnswerToolCall]]
    function_call: NotRequired[AnswerFunction]
    """The old form of `tool_calls`, where `functions` were given."""


FinishReason = Literal["stop", "length", "tool_calls", "function_call"]


@closed
class Choice(TypedDict):
    """One of the request's answers."""

    index: Count
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: FinishReason


@closed
class ChatCompletion(TypedDict):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    """Changes when anything changes that can change an answer: model, defaults, program."""
    service_tier: NotRequired[Literal["default", "flex"]]
    choices: list[Choice]
    usage: Usage
    timings: NotRequired[Timings]


@closed
class FunctionDelta(TypedDict):
    """A part of a call: the name comes first, then the arguments token by token."""

    name: NotRequired[str]
    arguments: str


@closed
class ToolCallDelta(TypedDict):
    """A part of call number `index`; id, type and name come with the first part."""

    index: Count
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionDelta


@closed
class ChunkDelta(TypedDict):
    """What is new."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCallDelta]]
    function_call: NotRequired[FunctionDelta]


@closed
class ChunkChoice(TypedDict):
    """What is new of one of the answers."""

    index: Count
    delta: ChunkDelta
    logprobs: Logprobs | None
    finish_reason: FinishReason | None


@closed
class ChatChunk(TypedDict):
    """An event of a streamed answer. After the last answer's end one with no choices brings usage and timings, where
    they were wanted."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    service_tier: NotRequired[Literal["default", "flex"]]
    choices: list[ChunkChoice]
    usage: NotRequired[Usage | None]
    timings: NotRequired[Timings]


@closed
class TextLogprobs(TypedDict):
    """Log-probabilities of a completion's tokens; `bytes:\\xNN` spells a token that is a part of a character."""

    tokens: list[str]
    token_logprobs: list[LogprobValue]
    top_logprobs: list[dict[str, LogprobValue]]
    text_offset: list[Count]
    """Where each token begins, in characters of the choice's text."""


@closed
class TextChoice(TypedDict):
    """One of the request's answers."""

    index: Count
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


@closed
class TextCompletion(TypedDict):
    """A whole answer: `n` choices for each prompt."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage
    timings: NotRequired[Timings]


@closed
class TextChunkChoice(TypedDict):
    """What is new of one of the answers."""

    index: Count
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"] | None


@closed
class TextChunk(TypedDict):
    """An event of a streamed completion. The last one, without choices, brings usage and timings, where they were
    wanted."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChunkChoice]
    usage: NotRequired[Usage | None]
    timings: NotRequired[Timings]


@closed
class Embedding(TypedDict):
    """The vector of input number `index`, of length 1."""

    object: Literal["embedding"]
    index: Count
    embedding: list[float] | str
    """A text where `encoding_format` is base64."""


@closed
class EmbeddingUsage(TypedDict):
    """Tokens of all inputs, with those that the model wants around them."""

    prompt_tokens: Count
    total_tokens: Count


@closed
class EmbeddingList(TypedDict):
    """The vectors, in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


@closed
class RankedText(TypedDict):
    """A document, where `return_documents` asks for them."""

    text: str


@closed
class Ranked(TypedDict):
    """Document number `index` of the request; `relevance_score`: the model's probability, from 0 to 1, that it meets
    the query."""

    index: Count
    relevance_score: float
    document: NotRequired[RankedText]


@closed
class RerankTokens(TypedDict):
    """The same as `usage`, where Cohere's clients look for it."""

    input_tokens: Count


@closed
class RerankMeta(TypedDict):
    """Of Cohere's answers."""

    tokens: RerankTokens


@closed
class RerankReply(TypedDict):
    """The documents, the best first; among equals the one that was named first. Tokens are those of all prompts, each
    with the query."""

    id: str
    object: Literal["list"]
    model: str
    results: list[Ranked]
    usage: EmbeddingUsage
    meta: RerankMeta


@closed
class TokenPiece(TypedDict):
    """A token: its text, or its bytes where it is a part of a character."""

    id: Count
    piece: str | list[Byte]


@closed
class Tokenized(TypedDict):
    """Token ids."""

    tokens: list[Count] | list[TokenPiece]
    count: Count
    max_model_len: Count
    token_strs: NotRequired[list[str]]


@closed
class Detokenized(TypedDict):
    """The text of token ids, under both names that servers have for it."""

    prompt: str
    content: str


@closed
class ModelCard(TypedDict):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["axpress"]
    max_model_len: NotRequired[int]
    """Tokens of prompt and answer together, by vLLM's name. Not there for a model that was not loaded yet and whose
    files do not tell."""
    input_modalities: NotRequired[list[Literal["text", "image"]]]
    """What a model with eyes reads, by OpenRouter's name; not there for those that read text only."""


@closed
class ModelList(TypedDict):
    """The models that can be asked for by name."""

    object: Literal["list"]
    data: list[ModelCard]

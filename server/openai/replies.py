"""What is answered: the JSON of answers, stream events and errors, as the writers write it, for the OpenAPI document
and the tests.

NotRequired: a field that is absent where it has nothing to say. Every object is closed: what is not listed is never
sent."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from axpress.core.engine.snapshot import CardState, Running

closed = with_config(ConfigDict(extra="forbid", use_attribute_docstrings=True))
"""For each TypedDict here: no other fields, and its attributes' docstrings are descriptions."""

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Byte = Annotated[int, Field(ge=0, le=255)]
LogprobValue = Annotated[float, Field(ge=-9999, le=0)]


@closed
class ErrorDetails(TypedDict):
    """What was wrong."""

    message: str
    """What was wrong, where, and what to do."""
    type: Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]
    param: str | None
    """The field, spelled like `messages[2].content`."""
    code: str | None


@closed
class Error(TypedDict):
    """An error in OpenAI's shape, as an answer of its own or as the last event of a stream."""

    error: ErrorDetails


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
class Logprob(TypedDict):
    """A token that was likely at its place."""

    token: str
    logprob: LogprobValue
    bytes: list[Byte] | None


@closed
class TokenLogprob(Logprob):
    """A generated token, and what was likely in its place."""

    top_logprobs: list[Logprob]


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


@closed
class ModelList(TypedDict):
    """The one model that is served."""

    object: Literal["list"]
    data: list[ModelCard]


@closed
class Health(TypedDict):
    """How the server is. Where API keys are needed, a client without one is told the status only."""

    status: str
    """ready, or why not: loading, stalled, draining, closed, failed."""
    reason: NotRequired[str]
    model: NotRequired[str]
    device: NotRequired[str]
    emulated: NotRequired[bool]
    profile: NotRequired[str | None]
    context_length: NotRequired[Count]
    runtime: NotRequired[str]
    toy: NotRequired[bool]
    num_running: NotRequired[Count]
    num_waiting: NotRequired[Count]
    max_running: NotRequired[Count]
    max_queue: NotRequired[Count]
    rows_used: NotRequired[Count]
    rows: NotRequired[Count]
    num_banks: NotRequired[Count]
    exact: NotRequired[bool]
    stats: NotRequired[dict[str, Any]]
    """The engine's counters."""
    note: NotRequired[str]
    num_answers: NotRequired[Count]
    uptime_seconds: NotRequired[Seconds]


@closed
class LiveBank(TypedDict):
    """One cache, row by row."""

    rows: Count
    free: Count
    idle: Count
    """Hold a prefix that nobody uses at present."""
    shared: Count
    runs: list[int]
    """Holder, length, holder, length ... from row 0 on. Holder 0: nobody; -1: an idle prefix; n: answer n; -k: k
    answers together."""


@closed
class LivePicture(TypedDict):
    """The engine between two passes."""

    running: list[Running]
    num_waiting: Count
    tokens_per_s: float | None
    """null until somebody has been looking for a moment."""
    passes: list[tuple[int, int]]
    """The latest ones, oldest first: tokens and answers carried."""
    banks: list[LiveBank]
    card: CardState


@closed
class Live(TypedDict):
    """What the card is doing: numbers only, no text. null: not known yet."""

    status: str
    reason: str
    model: str
    device: str | None
    emulated: bool | None
    toy: bool | None
    profile: str | None
    context_length: Count | None
    num_banks: Count | None
    max_running: Count | None
    max_queue: Count | None
    picture: LivePicture | None

"""What is answered at /v1/responses: the response object, whole or in events, as the writers write it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from ..http.replies import Count, ErrorDetails, closed
from ..schema.logprobs import TokenLogprob

ItemStatus = Literal["in_progress", "completed", "incomplete"]


@closed
class OutputText(TypedDict):
    """The text of a message."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)]
    logprobs: list[TokenLogprob]
    """Empty where none were asked for."""


@closed
class OutputMessage(TypedDict):
    """A message. It has no content while it is only announced."""

    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["assistant"]
    content: Annotated[list[OutputText], Field(max_length=1)]


@closed
class ReasoningText(TypedDict):
    """The text of reasoning."""

    type: Literal["reasoning_text"]
    text: str


@closed
class OutputReasoning(TypedDict):
    """What the model thought before it answered, as it is; can be sent back as an item of the input."""

    id: str
    type: Literal["reasoning"]
    status: ItemStatus
    summary: Annotated[list[Any], Field(max_length=0)]
    content: Annotated[list[ReasoningText], Field(max_length=1)]


@closed
class OutputCall(TypedDict):
    """A call of a function. The arguments of an incomplete one were cut off."""

    id: str
    type: Literal["function_call"]
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


OutputItem = OutputMessage | OutputReasoning | OutputCall


@closed
class InputDetails(TypedDict):
    """Where the prompt's tokens came from, and where they went."""

    cached_tokens: Count
    """Found in the cache, so computed by nobody anew."""
    cache_write_tokens: Count
    """The others."""


@closed
class OutputDetails(TypedDict):
    """What the answer's tokens were."""

    reasoning_tokens: Count


@closed
class ResponseUsage(TypedDict):
    """Tokens of a request and its answer."""

    input_tokens: Count
    input_tokens_details: InputDetails
    output_tokens: Count
    output_tokens_details: OutputDetails
    total_tokens: Count


@closed
class IncompleteDetails(TypedDict):
    """Why the answer is not complete."""

    reason: Literal["max_output_tokens"]


@closed
class FailedDetails(TypedDict):
    """Why the answer broke off."""

    code: Literal["server_error"]
    message: str


@closed
class ShownText(TypedDict):
    """The form of the text that was asked for."""

    format: dict[str, Any]
    verbosity: Literal["medium"]


@closed
class ShownReasoning(TypedDict):
    """The reasoning that was asked for."""

    effort: str | None
    summary: None


@closed
class Response(TypedDict):
    """An answer, and the settings that it came from; sampling settings are the model's own where the request named
    none. All of OpenAI's fields are there, since its clients want them."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: FailedDetails | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    temperature: float
    top_p: float
    top_logprobs: Count
    text: ShownText
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    reasoning: ShownReasoning
    service_tier: Literal["default", "flex"]
    metadata: dict[str, str]
    prompt_cache_key: str | None
    safety_identifier: str | None
    user: str | None
    background: Literal[False]
    previous_response_id: str | None
    store: bool
    truncation: Literal["disabled"]


class _Event(TypedDict):
    sequence_number: Count
    """Counts the events of a stream from 0."""


class _PlaceEvent(_Event):
    item_id: str
    output_index: Count


class _PartEvent(_PlaceEvent):
    content_index: Literal[0]


@closed
class ResponseEvent(_Event):
    """The response as it is: first, and last."""

    type: Literal[
        "response.created", "response.in_progress", "response.completed", "response.incomplete", "response.failed"
    ]
    response: Response


@closed
class ItemEvent(_Event):
    """An item begins or is complete."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: Count
    item: OutputItem


@closed
class PartEvent(_PartEvent):
    """The text of an item begins or is complete."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    part: OutputText | ReasoningText


@closed
class TextDelta(_PartEvent):
    """More text."""

    type: Literal["response.output_text.delta"]
    delta: str
    logprobs: list[TokenLogprob]


@closed
class TextDone(_PartEvent):
    """All text of a message."""

    type: Literal["response.output_text.done"]
    text: str
    logprobs: list[TokenLogprob]


@closed
class ReasoningDelta(_PartEvent):
    """More reasoning."""

    type: Literal["response.reasoning_text.delta"]
    delta: str


@closed
class ReasoningDone(_PartEvent):
    """All reasoning of an item."""

    type: Literal["response.reasoning_text.done"]
    text: str


@closed
class ArgumentsDelta(_PlaceEvent):
    """More of a call's arguments."""

    type: Literal["response.function_call_arguments.delta"]
    delta: str


@closed
class ArgumentsDone(_PlaceEvent):
    """All arguments of a call."""

    type: Literal["response.function_call_arguments.done"]
    name: str
    arguments: str


@closed
class ErrorEvent(_Event):
    """Why the answer breaks off: its fields, and the same as other APIs have it. response.failed follows."""

    type: Literal["error"]
    code: str | None
    message: str
    param: str | None
    error: ErrorDetails


TextEvent = PartEvent | TextDelta | TextDone | ReasoningDelta | ReasoningDone
ResponsesEvent = ResponseEvent | ItemEvent | TextEvent | ArgumentsDelta | ArgumentsDone | ErrorEvent
"""Anything in a stream of /v1/responses."""

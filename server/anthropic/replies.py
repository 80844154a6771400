"""What is answered in Anthropic's API: messages, the events of their streams, counts and errors."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from ..http.replies import Count, closed

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]


@closed
class AnthropicErrorDetails(TypedDict):
    """What was wrong."""

    type: str
    message: str
    """What was wrong, where, and what to do."""


@closed
class AnthropicError(TypedDict):
    """An error, as an answer of its own or as the last event of a stream."""

    type: Literal["error"]
    error: AnthropicErrorDetails


@closed
class AnthropicUsage(TypedDict):
    """Tokens. Those of the prompt that were found in the cache are not among `input_tokens`."""

    input_tokens: Count
    output_tokens: Count
    cache_read_input_tokens: Count
    cache_creation_input_tokens: Count
    """0: nothing is charged for."""


@closed
class TextContent(TypedDict):
    """Text."""

    type: Literal["text"]
    text: str


@closed
class ThinkingContent(TypedDict):
    """What the model thought."""

    type: Literal["thinking"]
    thinking: str
    signature: str
    """Empty: nothing is signed here."""


@closed
class ToolUseContent(TypedDict):
    """A call; `input` matches the tool's schema. A call that the limit of tokens cut off is not told."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


@closed
class AnthropicMessage(TypedDict):
    """An answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextContent | ThinkingContent | ToolUseContent]
    stop_reason: StopReason | None
    """null in the first event of a stream."""
    stop_sequence: str | None
    """The stop sequence that ended it."""
    usage: AnthropicUsage


@closed
class MessageStart(TypedDict):
    """The first event. How much of the prompt was found in the cache is told with the last ones."""

    type: Literal["message_start"]
    message: AnthropicMessage


@closed
class BlockStart(TypedDict):
    """A block begins, empty."""

    type: Literal["content_block_start"]
    index: Count
    content_block: TextContent | ThinkingContent | ToolUseContent


@closed
class AnthropicTextDelta(TypedDict):
    """More text."""

    type: Literal["text_delta"]
    text: str


@closed
class ThinkingDelta(TypedDict):
    """More of what the model thinks."""

    type: Literal["thinking_delta"]
    thinking: str


@closed
class JsonDelta(TypedDict):
    """More of a call's arguments; all of them joined are JSON."""

    type: Literal["input_json_delta"]
    partial_json: str


@closed
class BlockDelta(TypedDict):
    """A block goes on."""

    type: Literal["content_block_delta"]
    index: Count
    delta: AnthropicTextDelta | ThinkingDelta | JsonDelta


@closed
class BlockStop(TypedDict):
    """A block is over."""

    type: Literal["content_block_stop"]
    index: Count


@closed
class StopDelta(TypedDict):
    """Why the answer ended."""

    stop_reason: StopReason
    stop_sequence: str | None


@closed
class MessageDelta(TypedDict):
    """The answer is over; the usage is that of all of it."""

    type: Literal["message_delta"]
    delta: StopDelta
    usage: AnthropicUsage


@closed
class MessageStop(TypedDict):
    """The last event."""

    type: Literal["message_stop"]


Event = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | AnthropicError


@closed
class TokenCount(TypedDict):
    """What a prompt takes."""

    input_tokens: Count

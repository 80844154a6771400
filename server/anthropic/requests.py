"""POST /v1/messages: Anthropic's request, its messages made of blocks."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from axpress.core.errors import RequestError

from ..schema.fields import MAX_MESSAGES, Fraction, RequestFields, StopString, Strict, Text, TopK, kind, type_of
from ..schema.images import PictureText
from ..schema.tools import MAX_TOOLS, FunctionName, SchemaObject

CACHED = "a beginning that was computed before is found again in any case"
CallId = Annotated[Text, Field(min_length=1, max_length=256)]


class CacheControl(Strict):
    """Where Anthropic's cache of prompts shall end."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class _Cached(Strict):
    harmless: ClassVar[dict[str, str]] = {"cache_control": CACHED}

    cache_control: CacheControl | None = None


class TextBlock(_Cached):
    """Text."""

    harmless: ClassVar[dict[str, str]] = {**_Cached.harmless, "citations": "null, as answers have it"}

    type: Literal["text"]
    text: Text
    citations: None = None


class ThinkingBlock(Strict):
    """What the model thought in an earlier answer; the chat template decides whether it sees it again."""

    harmless: ClassVar[dict[str, str]] = {"signature": "nothing is signed here"}

    type: Literal["thinking"]
    thinking: Text
    signature: Text | None = None


class ToolUseBlock(_Cached):
    """A call that the model made."""

    type: Literal["tool_use"]
    id: CallId
    name: FunctionName
    input: SchemaObject


class Base64Source(Strict):
    """A picture's bytes. What they are is told from themselves, not from `media_type`."""

    type: Literal["base64"]
    media_type: Annotated[Text, Field(max_length=64)]
    data: PictureText


class UrlSource(Strict):
    """A picture to fetch, where the server's owner allows its host, or a data: URL."""

    type: Literal["url"]
    url: PictureText


class OtherSource(Strict):
    """None of the above."""

    type: Literal["base64", "url"]


def _source_kind(value: Any) -> str:
    name = type_of(value)
    return f"<{name}>" if name in ("base64", "url") else "<other>"


class ImageBlock(_Cached):
    """A picture in a message of the user's, for models with eyes."""

    type: Literal["image"]
    source: Annotated[
        Annotated[Base64Source, Tag("<base64>")]
        | Annotated[UrlSource, Tag("<url>")]
        | Annotated[OtherSource, Tag("<other>")],
        Discriminator(_source_kind),
    ]


Texts = Annotated[list[TextBlock], Field(fail_fast=True, max_length=MAX_MESSAGES)]
TextOrTexts = Annotated[Annotated[Text, Tag("<text>")] | Annotated[Texts, Tag("<list>")], Discriminator(kind)]


class ToolResultBlock(_Cached):
    """What a call came to. `is_error`: the model reads "Error: " before it."""

    type: Literal["tool_result"]
    tool_use_id: CallId
    content: TextOrTexts | None = None
    is_error: bool | None = None


class OtherBlock(Strict):
    """None of the above."""

    type: Literal["text", "image", "thinking", "tool_use", "tool_result"]


def _block_kind(value: Any) -> str:
    name = type_of(value)
    return f"<{name}>" if name in ("text", "image", "thinking", "tool_use", "tool_result") else "<other>"


Block = Annotated[
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ImageBlock, Tag("<image>")]
    | Annotated[ThinkingBlock, Tag("<thinking>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")]
    | Annotated[OtherBlock, Tag("<other>")],
    Discriminator(_block_kind),
]
Blocks = Annotated[list[Block], Field(fail_fast=True, max_length=MAX_MESSAGES)]


class Message(Strict):
    """What one side said. Results of calls are the user's."""

    role: Literal["user", "assistant"]
    content: Annotated[Annotated[Text, Tag("<text>")] | Annotated[Blocks, Tag("<list>")], Discriminator(kind)]

    @property
    def blocks(self) -> list[Any]:
        """The content as blocks."""
        return [TextBlock(type="text", text=self.content)] if isinstance(self.content, str) else self.content


class Tool(_Cached):
    """A function that the model may call. Arguments always match `input_schema`, `strict` or not."""

    type: Literal["custom"] | None = None
    name: FunctionName
    description: Text | None = None
    input_schema: SchemaObject
    strict: bool | None = None


class ToolChoice(Strict):
    """auto: as the model likes; any: at least one call and nothing else; tool: one call of `name`; none: no call."""

    type: Literal["auto", "any", "tool", "none"]
    name: FunctionName | None = None
    disable_parallel_tool_use: bool | None = None
    """true: at most one call."""


class ThinkingConfig(Strict):
    """enabled: at most `budget_tokens` of reasoning; adaptive: no bound of its own; disabled: none."""

    harmless: ClassVar[dict[str, str]] = {"display": "reasoning is told as it is"}

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    display: Literal["summarized"] | None = None


class JsonFormat(Strict):
    """JSON that matches a schema, guaranteed."""

    type: Literal["json_schema"]
    schema_: SchemaObject = Field(alias="schema")


class OutputConfig(Strict):
    """What the answer shall look like."""

    format: JsonFormat | None = None


class UserId(Strict):
    """A label of the caller's own."""

    user_id: Text | None = None


class PromptFields(RequestFields):
    """What an answer and a count of tokens share."""

    harmless: ClassVar[dict[str, str]] = {"cache_control": CACHED}
    refused: ClassVar[dict[str, str]] = {
        "container": "containers",
        "mcp_servers": "MCP connector; connect to MCP servers in your program",
        "context_management": "context management",
        "inference_geo": "choice of a place",
        "speed": "choice of a speed",
    }

    model: Text
    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    system: TextOrTexts | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None

    def check(self) -> None:
        if self.messages[-1].role != "user":
            text = "'messages': the last one must be the user's; this server does not go on with a begun answer."
            raise RequestError(text, f"messages[{len(self.messages) - 1}].role", "unsupported_value")
        if self.tool_choice is not None and (self.tool_choice.name is None) == (self.tool_choice.type == "tool"):
            text = "'tool_choice.name' belongs to type \"tool\", and to no other."
            raise RequestError(text, "tool_choice.name", "invalid_value")
        config = self.thinking
        if config is not None and (config.budget_tokens is None) == (config.type == "enabled"):
            text = "'thinking.budget_tokens' belongs to type \"enabled\", and to no other."
            raise RequestError(text, "thinking.budget_tokens", "invalid_value")


class MessagesRequest(PromptFields):
    """POST /v1/messages."""

    harmless: ClassVar[dict[str, str]] = {
        **PromptFields.harmless,
        "metadata": "a label of the caller's own; never stored, never logged",
        "service_tier": "there is one tier",
    }

    max_tokens: Annotated[int, Field(ge=1, lt=2**31)]
    """Reasoning counts. More than the context holds is as many as it holds; the answer says where that was the end."""
    stream: bool | None = None
    temperature: Fraction | None = None
    top_p: Fraction | None = None
    top_k: TopK | None = None
    stop_sequences: Annotated[list[StopString], Field(fail_fast=True, max_length=16)] | None = None
    metadata: UserId | None = None
    service_tier: Literal["auto", "standard_only"] | None = None


class CountRequest(PromptFields):
    """POST /v1/messages/count_tokens."""

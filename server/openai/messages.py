"""The messages of a chat, one class for each kind of speaker, and the order that calls and their results must have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from axpress.core.errors import RequestError

from ..schema.fields import MAX_MESSAGES, Content, Strict, Text, TextPart, joined, kind, type_of
from ..schema.images import ImageDetail, PictureText, image_source, parts_or_text
from ..schema.tools import FunctionName

MAX_CALLS = 128
CallId = Annotated[Text, Field(min_length=1, max_length=256)]


class SystemMessage(Strict):
    """What the model shall always keep in mind; developer is another word for system."""

    role: Literal["system", "developer"]
    content: Content


class ImageUrl(Strict):
    """`url`: data:image/png;base64,... or, where the server's owner allows its host, an http(s) URL. `detail`: how
    closely the model looks, where it has a choice (SmolVLM2: low is the whole picture without tiles)."""

    url: PictureText
    detail: ImageDetail | None = None


def _url_kind(value: Any) -> str:
    return "<text>" if isinstance(value, str) else "<object>"


class ImagePart(Strict):
    """A picture, for models with eyes."""

    type: Literal["image_url"]
    image_url: Annotated[
        Annotated[PictureText, Tag("<text>")] | Annotated[ImageUrl, Tag("<object>")], Discriminator(_url_kind)
    ]


def _part_kind(value: Any) -> str:
    return "<image>" if type_of(value) == "image_url" else "<text>"


UserPart = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[ImagePart, Tag("<image>")], Discriminator(_part_kind)
]
UserParts = Annotated[list[UserPart], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
UserContent = Annotated[Annotated[Text, Tag("<text>")] | Annotated[UserParts, Tag("<list>")], Discriminator(kind)]


class UserMessage(Strict):
    """What the user said, pictures in their place among the texts."""

    role: Literal["user"]
    content: UserContent


class CalledFunction(Strict):
    """A function's name and the JSON of its arguments, as the model wrote it."""

    harmless: ClassVar[dict[str, str]] = {"parsed_arguments": "OpenAI's clients add it to the answers that they parse"}

    name: FunctionName
    arguments: Text
    parsed_arguments: Any = None


class ToolCall(Strict):
    """A call that the model made."""

    harmless: ClassVar[dict[str, str]] = {"index": "clients that put a streamed answer together leave it in"}

    id: CallId
    type: Literal["function"]
    function: CalledFunction
    index: Annotated[int, Field(ge=0, lt=2**31)] | None = None


class AssistantMessage(Strict):
    """An earlier answer. `content` may be absent beside calls; `reasoning_content` goes to the chat template, which
    decides whether the model sees it again."""

    harmless: ClassVar[dict[str, str]] = {
        "refusal": "null, as answers have it",
        "audio": "null, as answers have it",
        "annotations": "empty, as answers have it",
        "parsed": "OpenAI's clients add it to the answers that they parse",
    }

    role: Literal["assistant"]
    content: Content | None = None
    reasoning_content: Text | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True, max_length=MAX_CALLS)] | None = None
    function_call: CalledFunction | None = None
    """The old form of `tool_calls`."""
    refusal: None = None
    audio: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    parsed: Any = None


class ToolMessage(Strict):
    """What a call came to."""

    harmless: ClassVar[dict[str, str]] = {"name": "the call itself says which function it was"}

    role: Literal["tool"]
    tool_call_id: CallId
    content: Content
    name: Text | None = None


class FunctionMessage(Strict):
    """The old form of a tool message: what the latest call of this function came to."""

    role: Literal["function"]
    name: FunctionName
    content: Content


class OtherMessage(Strict):
    """None of the above."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]


_KINDS = {
    "system": "<system>",
    "developer": "<system>",
    **{name: f"<{name}>" for name in ("user", "assistant", "tool", "function")},
}


def _message_kind(value: Any) -> str:
    role = type_of(value, "role")
    return _KINDS.get(role, "<other>") if isinstance(role, str) else "<other>"


Message = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[ToolMessage, Tag("<tool>")]
    | Annotated[FunctionMessage, Tag("<function>")]
    | Annotated[OtherMessage, Tag("<other>")],
    Discriminator(_message_kind),
]
Messages = Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]


def check_messages(messages: Sequence[Message]) -> None:
    """Raises RequestError for an assistant message that says nothing, for a result without a call before it, and for
    calls of which some have no result in the messages that follow at once."""
    calls: set[str] = set()
    caller = 0
    due: dict[str, None] = {}  # calls of message `caller` that have no result yet, in order
    for index, message in enumerate(messages):
        field = f"messages[{index}]"
        if isinstance(message, ToolMessage):
            due.pop(message.tool_call_id, None)
        elif due and not isinstance(message, FunctionMessage):
            break
        if isinstance(message, AssistantMessage):
            _check_assistant(message, field)
            caller, due = index, dict.fromkeys(call.id for call in message.tool_calls or ())
            calls |= due.keys()
            calls |= {function_id(message.function_call.name)} if message.function_call is not None else set()
        elif isinstance(message, ToolMessage) and message.tool_call_id not in calls:
            text = f"'{field}.tool_call_id': no call '{message.tool_call_id[:64]}' was made before this message."
            raise RequestError(text, f"{field}.tool_call_id", "invalid_value")
        elif isinstance(message, FunctionMessage) and function_id(message.name) not in calls:
            text = f"'{field}.name': no call of '{message.name}' was made before this message."
            raise RequestError(text, f"{field}.name", "invalid_value")
    if due:
        field = f"messages[{caller}].tool_calls"
        text = (
            f"'{field}': the call '{next(iter(due))[:64]}' has no result; a tool message for each call must follow at"
            " once."
        )
        raise RequestError(text, field, "invalid_value")


def _check_assistant(message: AssistantMessage, field: str) -> None:
    if message.content is None and not message.tool_calls and message.function_call is None:
        text = f"'{field}.content' may be null only beside calls."
        raise RequestError(text, f"{field}.content", "invalid_value")
    if message.tool_calls and message.function_call is not None:
        text = f"'{field}': send 'tool_calls' or 'function_call', not both."
        raise RequestError(text, f"{field}.function_call", "invalid_value")


def function_id(name: str) -> str:
    """The id of a call in the old form, which has none of its own."""
    return f"function {name}"


def neutral_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """As chat templates know them: text content, or parts where there are pictures; developer as system, function calls
    as tool calls."""
    return [_neutral(message, f"messages[{index}].content") for index, message in enumerate(messages)]


def _seen(content: Any, field: str) -> str | list[dict[str, Any]]:
    """What a user said, with the pictures."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else []
    for index, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
            continue
        whole = part.image_url if isinstance(part.image_url, ImageUrl) else ImageUrl(url=part.image_url)
        parts.append(image_source(f"{field}[{index}].image_url", whole.url, detail=whole.detail).part)
    return parts_or_text(parts)


def _neutral(message: Any, field: str) -> dict[str, Any]:
    if isinstance(message, UserMessage):
        return {"role": "user", "content": _seen(message.content, field)}
    content = joined(message.content or "")
    if isinstance(message, SystemMessage):
        return {"role": message.role.replace("developer", "system"), "content": content}
    if isinstance(message, ToolMessage):
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": content}
    if isinstance(message, FunctionMessage):
        call_id = function_id(message.name)
        return {"role": "tool", "name": message.name, "tool_call_id": call_id, "content": content}
    neutral: dict[str, Any] = {"role": "assistant", "content": content}
    if message.reasoning_content:
        neutral["reasoning_content"] = message.reasoning_content
    calls = [neutral_call(call.id, call.function) for call in message.tool_calls or ()]
    if message.function_call is not None:
        calls = [neutral_call(function_id(message.function_call.name), message.function_call)]
    if calls:
        neutral["tool_calls"] = calls
    return neutral


def neutral_call(call_id: str, function: Any) -> dict[str, Any]:
    """A call as chat templates know it; `function` has its `name` and the JSON of its `arguments`."""
    return {"id": call_id, "type": "function", "function": {"name": function.name, "arguments": function.arguments}}

"""The messages of a chat, one class for each kind of speaker, and the order that calls and their results must have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from axpress.core.errors import RequestError

from ..schema.fields import MAX_MESSAGES, Content, Strict, Tokenizer, joined
from ..schema.tools import FunctionName

MAX_CALLS = 128
CallId = Annotated[Tokenizer, Field(min_length=1, max_length=256)]


class SystemMessage(Strict):
    """What the model shall always keep in mind; developer is another word for system."""

    role: Literal["system", "developer"]
    content: Content


class UserMessage(Strict):
    """What the user said."""

    role: Literal["user"]
    content: Content


class CalledFunction(Strict):
    """A function's name and the JSON of its arguments, as the model wrote it."""

    harmless: ClassVar[dict[str, str]] = {"parsed_arguments": "OpenAI's clients add it to the answers that they parse"}

    name: FunctionName
    arguments: Tokenizer
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
    reasoning_content: Tokenizer | None = None
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
    name: Tokenizer | None = None


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
    role = value.get("role") if isinstance(value, dict) else getattr(value, "role", None)
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
    made: set[str] = set()
    caller = 0
    due: dict[str, None] = {}  # calls of message `caller` that have no result yet, in order
    for index, one in enumerate(messages):
        where = f"messages[{index}]"
        if isinstance(one, ToolMessage):
            due.pop(one.tool_call_id, None)
        elif due and not isinstance(one, FunctionMessage):
            break
        if isinstance(one, AssistantMessage):
            if one.content is None and not one.tool_calls and one.function_call is None:
                raise RequestError(
                    f"'{where}.content' may be null only beside calls.", f"{where}.content", "invalid_value"
                )
            if one.tool_calls and one.function_call is not None:
                raise RequestError(
                    f"'{where}': send 'tool_calls' or 'function_call', not both.",
                    f"{where}.function_call",
                    "invalid_value",
                )
            caller, due = index, dict.fromkeys(call.id for call in one.tool_calls or ())
            made |= due.keys()
            made |= {f"function {one.function_call.name}"} if one.function_call is not None else set()
        elif isinstance(one, ToolMessage) and one.tool_call_id not in made:
            text = f"'{where}.tool_call_id': no call '{one.tool_call_id[:64]}' was made before this message."
            raise RequestError(text, f"{where}.tool_call_id", "invalid_value")
        elif isinstance(one, FunctionMessage) and f"function {one.name}" not in made:
            text = f"'{where}.name': no call of '{one.name}' was made before this message."
            raise RequestError(text, f"{where}.name", "invalid_value")
    if due:
        where = f"messages[{caller}].tool_calls"
        text = (
            f"'{where}': the call '{next(iter(due))[:64]}' has no result; a tool message for each call must follow at"
            " once."
        )
        raise RequestError(text, where, "invalid_value")


def neutral_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """As chat templates know them: text content, developer as system, function calls as tool calls."""
    return [_neutral(one) for one in messages]


def _neutral(message: Any) -> dict[str, Any]:
    if isinstance(message, SystemMessage | UserMessage):
        return {"role": message.role.replace("developer", "system"), "content": joined(message.content)}
    if isinstance(message, ToolMessage):
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": joined(message.content)}
    if isinstance(message, FunctionMessage):
        return {
            "role": "tool",
            "name": message.name,
            "tool_call_id": f"function {message.name}",
            "content": joined(message.content),
        }
    out: dict[str, Any] = {"role": "assistant", "content": joined(message.content or "")}
    if message.reasoning_content:
        out["reasoning_content"] = message.reasoning_content
    calls = [(one.id, one.function) for one in message.tool_calls or ()]
    if message.function_call is not None:
        calls = [(f"function {message.function_call.name}", message.function_call)]
    if calls:
        out["tool_calls"] = [_neutral_call(key, one) for key, one in calls]
    return out


def _neutral_call(key: str, function: CalledFunction) -> dict[str, Any]:
    return {"id": key, "type": "function", "function": {"name": function.name, "arguments": function.arguments}}

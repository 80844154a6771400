"""The items of a Responses conversation, and the messages that they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, TypeAdapter, model_validator

from axpress.core.errors import RequestError

from ..schema.fields import MAX_MESSAGES, Strict, Text, kind, type_of
from ..schema.images import ImageDetail, PictureText, image_source, only_of_user, parts_or_text
from ..schema.tools import FunctionName
from .messages import CallId, neutral_call

Status = Literal["in_progress", "completed", "incomplete"]
ItemId = Annotated[Text, Field(max_length=256)]


class _ItemFields(Strict):
    """What all items have: what answers say of theirs, and clients send back."""

    harmless: ClassVar[dict[str, str]] = {
        "id": "clients send items back as they came",
        "status": "clients send items back as they came",
    }

    id: ItemId | None = None
    status: Status | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, item: Any) -> Any:
        """null means "not given", also for fields that are not ours: clients dump whole objects."""
        return {name: value for name, value in item.items() if value is not None} if isinstance(item, dict) else item


def _text_only(value: Any) -> Any:
    if isinstance(value, str) and value not in ("input_text", "output_text"):
        raise ValueError(f"parts of type {value[:32]!r} are not supported here: only text")
    return value


class InputText(Strict):
    """A part of a message: text."""

    harmless: ClassVar[dict[str, str]] = {
        "annotations": "empty, as answers have them",
        "logprobs": "clients send parts back as they came",
    }

    type: Annotated[Literal["input_text", "output_text"], BeforeValidator(_text_only)]
    text: Text
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: Annotated[list[Any], AfterValidator(lambda _: None)] | None = None


class InputImage(Strict):
    """A picture in a message of the user's, for models with eyes: data:image/png;base64,... or, where the server's
    owner allows its host, an http(s) URL. `detail`: how closely the model looks, where it has a choice (SmolVLM2)."""

    type: Literal["input_image"]
    image_url: PictureText
    detail: ImageDetail | None = None
    file_id: None = None


def _part_kind(value: Any) -> str:
    return "<image>" if type_of(value) == "input_image" else "<text>"


Texts = Annotated[list[InputText], Field(fail_fast=True, max_length=MAX_MESSAGES)]
Content = Annotated[Annotated[Text, Tag("<text>")] | Annotated[Texts, Tag("<list>")], Discriminator(kind)]
Part = Annotated[Annotated[InputText, Tag("<text>")] | Annotated[InputImage, Tag("<image>")], Discriminator(_part_kind)]
Parts = Annotated[list[Part], Field(fail_fast=True, max_length=MAX_MESSAGES)]
SeenContent = Annotated[Annotated[Text, Tag("<text>")] | Annotated[Parts, Tag("<list>")], Discriminator(kind)]


def joined(content: str | list[InputText]) -> str:
    """Content as one string; parts are joined without a separator."""
    return content if isinstance(content, str) else "".join([part.text for part in content])


def _seen(item: MessageItem, field: str) -> str | list[dict[str, Any]]:
    """What a message says, with the pictures. Raises RequestError where it is not the user's and has any."""
    if isinstance(item.content, str):
        return item.content
    parts = []
    for index, part in enumerate(item.content):
        where = f"{field}.content[{index}]"
        if isinstance(part, InputText):
            parts.append({"type": "text", "text": part.text})
        elif item.role == "user":
            parts.append(image_source(f"{where}.image_url", part.image_url, detail=part.detail).part)
        else:
            raise only_of_user(where)
    return parts_or_text(parts)


class MessageItem(_ItemFields):
    """A message; `type` may be left out."""

    harmless: ClassVar[dict[str, str]] = {
        **_ItemFields.harmless,
        "phase": "the client's own note on what kind of answer it was",
    }

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: SeenContent
    phase: Literal["commentary", "final_answer"] | None = None


class CallItem(_ItemFields):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: CallId
    name: FunctionName
    arguments: Text


class CallOutputItem(_ItemFields):
    """What a call came to."""

    harmless: ClassVar[dict[str, str]] = {**_ItemFields.harmless, "name": "the call itself says which function it was"}

    type: Literal["function_call_output"]
    call_id: CallId
    output: Content
    name: Text | None = None


class ReasoningPart(Strict):
    """A part of the reasoning."""

    type: Literal["reasoning_text"]
    text: Text


class ReasoningItem(_ItemFields):
    """What the model thought before an answer; it goes to the chat template, which decides whether the model sees it
    again.

    `summary` is empty and `encrypted_content` null, as answers have them.
    """

    type: Literal["reasoning"]
    summary: Annotated[list[Any], Field(max_length=0)] | None = None
    content: Annotated[list[ReasoningPart], Field(fail_fast=True, max_length=MAX_MESSAGES)] | None = None
    encrypted_content: None = None


class OtherItem(Strict):
    """None of the above: refused, by its type."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"]


_KINDS = ("message", "function_call", "function_call_output", "reasoning")


def _item_kind(value: Any) -> str:
    """Discriminator of items: by type; what has none is a message."""
    name = type_of(value)
    return "<message>" if name is None else f"<{name}>" if name in _KINDS else "<other>"


Item = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[CallItem, Tag("<function_call>")]
    | Annotated[CallOutputItem, Tag("<function_call_output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[OtherItem, Tag("<other>")],
    Discriminator(_item_kind),
]
Items = Annotated[list[Item], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]


_STORED: TypeAdapter[list[Any]] = TypeAdapter(list[Item])
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}


def _as_items(conversation: str | list[Any]) -> list[Any]:
    return [MessageItem(role="user", content=conversation)] if isinstance(conversation, str) else conversation


def listed_items(
    conversation: str | list[Any], nonce: str, earlier: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """`earlier` and the items of a request after it, as they are stored and listed: each with a type and an id that no
    other has; `nonce` makes new ids unique."""
    items = list(earlier)
    taken = {item["id"] for item in items}
    for number, item in enumerate(_as_items(conversation)):
        kind = item.type or "message"
        document = {"type": kind, "status": "completed", **item.model_dump(mode="json", exclude_none=True)}
        if document.setdefault("id", "") in taken | {""}:
            document["id"] = f"{_PREFIXES[kind]}_{nonce}i{number:x}"
        if kind == "message" and isinstance(document["content"], str):
            part = "output_text" if document["role"] == "assistant" else "input_text"
            document["content"] = [{"type": part, "text": document["content"]}]
        taken.add(document["id"])
        items.append(document)
    return items


def neutral_items(
    conversation: str | list[Any], instructions: str | None, earlier: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The conversation as chat templates know it: items of one turn of the assistant's become one message. `earlier`:
    items as they were stored, which come before.

    Raises RequestError for a result without a call before it.
    """
    before, items = _STORED.validate_python(list(earlier)), _as_items(conversation)
    _check_calls(before, items)
    names = [*["previous_response_id"] * len(before), *(f"input[{index}]" for index in range(len(items)))]
    messages = list(_messages(zip([*before, *items], names, strict=True)))
    if instructions:
        first = messages[0]
        if first["role"] == "system":
            messages[0] = {**first, "content": f"{instructions}\n\n{first['content']}"}
        else:
            messages.insert(0, {"role": "system", "content": instructions})
    return messages


def _check_calls(before: list[Any], items: list[Any]) -> None:
    calls = {item.call_id for item in before if isinstance(item, CallItem)}
    for index, item in enumerate(items):
        if isinstance(item, CallItem):
            calls.add(item.call_id)
        elif isinstance(item, CallOutputItem) and item.call_id not in calls:
            field = f"input[{index}].call_id"
            text = f"'{field}': no call '{item.call_id[:64]}' was made before this item."
            raise RequestError(text, field, "invalid_value")


def _messages(items: Iterable[tuple[Any, str]]) -> Iterator[dict[str, Any]]:
    """Of items, each with its field's name."""
    turn: dict[str, Any] | None = None
    last = 0
    for item, field in items:
        step = _step(item)
        if turn is not None and (step is None or step < last or step == last == _TEXT):
            yield turn
            turn = None
        if step is None:
            yield _of_others(item, field)
        else:
            turn, last = _with(turn or {"role": "assistant", "content": ""}, item, field), step
    if turn is not None:
        yield turn


_REASONING, _TEXT, _CALL = range(3)


def _step(item: Any) -> int | None:
    """Where it belongs in a turn of the assistant's, which has reasoning, text and calls in this order; None: it is
    nothing of the assistant's."""
    if isinstance(item, MessageItem):
        return _TEXT if item.role == "assistant" else None
    return _REASONING if isinstance(item, ReasoningItem) else _CALL if isinstance(item, CallItem) else None


def _with(turn: dict[str, Any], item: Any, field: str) -> dict[str, Any]:
    """The assistant's message with one item more."""
    if isinstance(item, MessageItem):
        return {**turn, "content": _seen(item, field)}
    if isinstance(item, CallItem):
        return {**turn, "tool_calls": [*turn.get("tool_calls", []), neutral_call(item.call_id, item)]}
    thoughts = [turn["reasoning_content"]] if "reasoning_content" in turn else []
    thoughts += [part.text for part in item.content or ()]
    return {**turn, "reasoning_content": "\n".join(thoughts)} if thoughts else turn


def _of_others(item: Any, field: str) -> dict[str, Any]:
    if isinstance(item, CallOutputItem):
        return {"role": "tool", "tool_call_id": item.call_id, "content": joined(item.output)}
    return {"role": item.role.replace("developer", "system"), "content": _seen(item, field)}

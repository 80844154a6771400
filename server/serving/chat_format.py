"""How a model writes thoughts and calls: found by rendering its chat template, once, when the model is loaded.

Thoughts stand within <think></think>. A template that writes calls as Qwen's and Hermes' do (a line of JSON within
<tool_call>) is given tools and calls as they are. With any other, one of another form of calls included, the model is
told of the functions by a text of ours, in the system message, and calls and results are laid out in the same form as
plain text in messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from axpress.core.errors import RequestError
from axpress.core.structured_output.output_spec import OutputSpec, Thinking, ToolFormat, ToolRule

from .generation_spec import Function, GenerationSpec

if TYPE_CHECKING:
    from axpress.core.tokenizer.tokenizer import Tokenizer
    from axpress.core.vision import ImageAdapter

THINK, END_THINK = "<think>", "</think>"
GENERIC = ToolFormat('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>")
INSTRUCTIONS = """You can call functions. Here they are, one in each line:
{functions}

To call one, write its name and arguments like this, and nothing after it:
<tool_call>
{{"name": "the function's name", "arguments": {{"an argument's name": "its value"}}}}
</tool_call>
You are then given what it returned, within <tool_response></tool_response>."""

Messages = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """`thinking`: "never"; "always", where the template lets the model think whatever it is told; "switch", where it
    can be told. `thinks`: the template does so untold; `default`: what the package's config tells it. `native`: the
    template lays out tools, calls and results, `arguments_as_text` or as objects; `system`: it takes system
    messages. `picture`: what stands for a picture where the template does not know any (None: it does, or the model has
    no eyes); `only_parts`: the template wants every content as a list of parts."""

    text: Tokenizer
    thinking: Literal["never", "always", "switch"] = "never"
    thinks: bool = False
    default: bool | None = None
    tool_format: ToolFormat = GENERIC
    native: bool = False
    arguments_as_text: bool = False
    system: bool = True
    picture: str | None = None
    only_parts: bool = False

    def prompt(self, spec: GenerationSpec) -> tuple[list[int], Thinking | None]:
        """The prompt's ids, and the reasoning that the answer begins with. Raises RequestError."""
        if self.thinking == "never" and spec.thinking:
            text = f"'{spec.names.thinking}': this model does not reason. Leave it out, or ask for none."
            raise RequestError(text, spec.names.thinking, "unsupported_value")
        wanted = self.default if spec.thinking is None else spec.thinking
        functions = () if spec.tools is None or spec.tools.choice == "none" else spec.tools.functions
        variables: dict[str, Any] = {}
        if self.thinking == "switch" and wanted is not None:
            variables["enable_thinking"] = wanted
        if functions and self.native:
            variables["tools"] = [_tool(function) for function in functions]
        ids = self.text.render(self._messages(spec.messages or [], functions), picture=self.picture, **variables)
        if self.thinking == "never":
            return ids, None
        end = self.text.decode(ids[-8:], skip_special_tokens=False).rstrip()
        if end.endswith(THINK):
            if wanted is not False:
                return ids, Thinking(open=True)
            return [*ids, *self._control(END_THINK), *self.text.encode("\n\n")], None
        thinks = self.thinks if wanted is None else wanted
        return ids, Thinking() if thinks and not end.endswith(END_THINK) else None

    def _control(self, token: str) -> list[int]:
        try:
            return [self.text.encode_control(token)]
        except KeyError:
            return self.text.encode(token)

    def output_spec(self, spec: GenerationSpec, thinking: Thinking | None) -> OutputSpec:
        """What the answer consists of."""
        if spec.tools is None:
            return OutputSpec(body=spec.body, thinking=thinking)
        fields = {f.name: spec.names.tool_parameters.format(i) for i, f in enumerate(spec.tools.functions)}
        rules = tuple([ToolRule(f.name, f.parameters, fields[f.name]) for f in spec.tools.callable])
        return OutputSpec(
            body=spec.body,
            tools=rules,
            tool_format=self.tool_format if rules else None,
            tool_choice="required" if spec.tools.choice == "required" else "auto",
            parallel=spec.tools.parallel,
            thinking=thinking,
        )

    def _messages(self, messages: Messages, functions: Sequence[Function]) -> Messages:
        """As this model's template takes them."""
        messages = in_call_order(messages)
        if self.native:
            messages = [self._native(message) for message in messages]
        else:
            messages = _as_text(messages)
            if functions:
                lines = "\n".join([_json(_tool(function)["function"]) for function in functions])
                messages = _instructed(messages, INSTRUCTIONS.format(functions=lines), self.system)
        return [{**m, "content": _parts(m["content"])} for m in messages] if self.only_parts else messages

    def _native(self, message: dict[str, Any]) -> dict[str, Any]:
        calls = message.get("tool_calls")
        if not calls:
            return message
        read = _arguments_text if self.arguments_as_text else _arguments_object
        calls = [{**call, "function": {**call["function"], "arguments": read(call["function"])}} for call in calls]
        return {**message, "tool_calls": calls}


def in_call_order(messages: Messages) -> Messages:
    """The same messages, neighbouring results in the order of the calls that they answer: templates do not show ids."""
    order: dict[Any, int] = {}
    out: Messages = []
    for is_result, group in groupby(messages, _is_result):
        neighbours = list(group)
        if is_result:
            neighbours.sort(key=lambda result: order.get(result.get("tool_call_id"), len(order)))
        else:
            calls = next((m["tool_calls"] for m in reversed(neighbours) if m.get("tool_calls")), None)
            order = {call.get("id"): i for i, call in enumerate(calls)} if calls else order
        out += neighbours
    return out


def _is_result(message: dict[str, Any]) -> bool:
    return bool(message["role"] == "tool")


def _tool(function: Function) -> dict[str, Any]:
    """A function as templates know it."""
    description = {} if function.description is None else {"description": function.description}
    parameters = function.parameters if function.parameters is not None else {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": function.name, **description, "parameters": parameters}}


def _json(value: Any) -> str:
    """JSON as templates lay it out, and as grammars do."""
    return json.dumps(value, ensure_ascii=False)


def _arguments_text(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    return arguments if isinstance(arguments, str) else _json(arguments)


def _arguments_object(function: Mapping[str, Any]) -> Any:
    arguments = function["arguments"]
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        text = (
            f"'messages': the arguments of a call of '{function['name']}' are not a JSON object, which this model's"
            " template needs."
        )
        raise RequestError(text, "messages", "invalid_value")
    return arguments


def _as_text(messages: Messages) -> Messages:
    """Calls and results as text: a template that knows neither sees system, user and assistant only."""
    out: Messages = []
    for is_result, group in groupby(messages, _is_result):
        if is_result:
            results = [f"<tool_response>\n{result['content']}\n</tool_response>" for result in group]
            out.append({"role": "user", "content": "\n".join(results)})
            continue
        for message in group:
            if isinstance(message["content"], list):
                out.append(message)
                continue
            lines = [message["content"]] if message["content"] else []
            lines += [_call_as_text(call["function"]) for call in message.get("tool_calls") or ()]
            out.append({**{k: v for k, v in message.items() if k != "tool_calls"}, "content": "\n".join(lines)})
    return out


def _call_as_text(function: Mapping[str, Any]) -> str:
    return GENERIC.begin + function["name"] + GENERIC.before_arguments + _arguments_text(function) + GENERIC.end


def _instructed(messages: Messages, text: str, system: bool) -> Messages:
    """With `text` at the end of the first system message, or in one of its own; or before the first words of the
    user."""
    first = messages[0] if messages else {"role": "", "content": ""}
    if first["role"] == "system":
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    if system:
        return [{"role": "system", "content": text}, *messages]
    if first["role"] == "user":
        said, text = first["content"], f"{text}\n\n"
        return [{**first, "content": text + said if isinstance(said, str) else _parts(text) + said}, *messages[1:]]
    return [{"role": "user", "content": text}, *messages]


def _parts(content: Any) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


HI: Messages = [{"role": "user", "content": "hi"}]
_KEY, _RESULT = "axpress_key", "axpress_result"
_FUNCTION = Function("axpress_probe", "probe", {"type": "object", "properties": {_KEY: {"type": "integer"}}})
_CALL = r'<tool_call>(\s*)\{"name": "axpress_probe", "arguments": \{"axpress_key": 1\}\}(\s*)</tool_call>'


def chat_format_of(text: Tokenizer, default: bool | None = None, eyes: ImageAdapter | None = None) -> ChatFormat:
    """That of a model with this tokenizer and chat template; `default`: whether its package wants it to think."""
    if not text.can_render:
        return ChatFormat(text)
    found = _format_of(text, default)
    return found if eyes is None else _with_pictures(found, eyes)


def _with_pictures(found: ChatFormat, eyes: ImageAdapter) -> ChatFormat:
    """How pictures stand in its prompts."""
    seen = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hi"}]}]
    said = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    shown, listed, plain = (_rendered(found.text, messages) or "" for messages in (seen, said, HI))
    if shown.count(eyes.placeholder) != 1 or "hi" not in shown:
        return replace(found, picture=eyes.in_text)
    return replace(found, only_parts=plain != listed)


def _format_of(text: Tokenizer, default: bool | None) -> ChatFormat:
    thinking, thinks = _thinking(text)
    system = _rendered(text, [{"role": "system", "content": "be brief"}, *HI]) is not None
    chat_format = ChatFormat(text, thinking, thinks, default, system=system)
    tool_format = _native_calls(text, {"axpress_key": 1})
    if tool_format is None:
        return chat_format
    as_text = _native_calls(text, '{"axpress_key": 1}') == tool_format
    return replace(chat_format, tool_format=tool_format, native=True, arguments_as_text=as_text)


def _rendered(text: Tokenizer, messages: Messages, **variables: Any) -> str | None:
    """What the template makes of messages; None: it refuses them."""
    try:
        return text.decode(text.render(messages, **variables), skip_special_tokens=False)
    except RequestError:
        return None


def _thinking(text: Tokenizer) -> tuple[Literal["never", "always", "switch"], bool]:
    plain, on, off = (
        _rendered(text, HI),
        _rendered(text, HI, enable_thinking=True),
        _rendered(text, HI, enable_thinking=False),
    )
    if on is not None and off is not None and on != off:
        return "switch", plain == on
    opened = plain is not None and plain.rstrip().endswith(THINK)
    return ("always", True) if opened else ("never", False)


def _native_calls(text: Tokenizer, arguments: Any) -> ToolFormat | None:
    """How the template writes calls, if it shows functions, calls and results in the form that we read."""
    call = {"id": "call_0", "type": "function", "function": {"name": _FUNCTION.name, "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "call_0", "name": _FUNCTION.name, "content": _RESULT}
    tools = [_tool(_FUNCTION)]
    offer = _rendered(text, HI, tools=tools)
    calls = _rendered(
        text, [*HI, {"role": "assistant", "content": "", "tool_calls": [call, call]}, result], tools=tools
    )
    if offer is None or calls is None or _FUNCTION.name not in offer or _RESULT not in calls:
        return None
    match = re.search(_CALL + r"(\s*)" + _CALL, calls)
    if match is None:
        return None
    before, after, between = match[1], match[2], match[3]
    return ToolFormat(f'<tool_call>{before}{{"name": "', '", "arguments": ', f"}}{after}</tool_call>", between)

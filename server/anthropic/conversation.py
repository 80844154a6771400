"""From a request in Anthropic's spelling to the neutral one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from axpress.core.errors import RequestError
from axpress.core.structured_output.output_spec import JsonSchema

from ..schema.images import image_source, parts_or_text
from ..schema.tools import ToolMode, tools_asked
from ..serving.generation_spec import FieldNames, Function, GenerationSpec, Tools, without_none
from .requests import (
    Base64Source,
    ImageBlock,
    Message,
    PromptFields,
    TextBlock,
    ThinkingBlock,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
)  # fmt: skip

NAMES = FieldNames(thinking="thinking", tool_parameters="tools[{}].input_schema")


def spec(request: PromptFields, **fields: Any) -> GenerationSpec:
    """The request in neutral form; `fields`: what only a request for an answer has."""
    config, output = request.thinking, request.output_config
    wanted = output.format if output is not None else None
    return GenerationSpec(
        model=request.model,
        messages=neutral_messages(request.system, request.messages),
        tools=_tools(request),
        body=JsonSchema(wanted.schema_, "output_config.format.schema") if wanted is not None else None,
        thinking=None if config is None else config.type != "disabled",
        thinking_budget=None if config is None else config.budget_tokens,
        names=NAMES,
        **fields,
    )


def _tools(request: PromptFields) -> Tools | None:
    functions = [Function(tool.name, tool.description, tool.input_schema) for tool in request.tools or ()]
    choice = request.tool_choice or ToolChoice(type="auto")
    mode: ToolMode = choice.type if choice.type in ("auto", "none") else "required"
    only = [choice.name] if choice.name is not None else []
    parallel = not (choice.disable_parallel_tool_use or only)
    return tools_asked(functions, mode, only, parallel=parallel)


def neutral_messages(system: str | list[TextBlock] | None, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """As chat templates know them: results of calls are messages of their own, before what the user says with them.

    Raises RequestError for a block on the wrong side, and for a result without a call."""
    out: list[dict[str, Any]] = [{"role": "system", "content": _joined(system)}] if system else []
    calls: set[str] = set()
    for index, message in enumerate(messages):
        field = f"messages[{index}].content"
        if message.role == "assistant":
            out.append(_assistant(message, field, calls))
        else:
            out += _user(message, field, calls)
    return out


def _json(value: dict[str, Any]) -> str:
    """However long its integers are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _assistant(message: Message, field: str, calls: set[str]) -> dict[str, Any]:
    texts, thoughts, tool_calls = [], [], []
    for number, block in enumerate(message.blocks):
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ThinkingBlock):
            thoughts.append(block.thinking)
        elif isinstance(block, ToolUseBlock):
            calls.add(block.id)
            function = {"name": block.name, "arguments": _json(block.input)}
            tool_calls.append({"id": block.id, "type": "function", "function": function})
        else:
            raise _misplaced(f"{field}[{number}]", "user")
    extra = without_none(reasoning_content="".join(thoughts) or None, tool_calls=tool_calls or None)
    return {"role": "assistant", "content": "".join(texts), **extra}


def _user(message: Message, field: str, calls: set[str]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for number, block in enumerate(message.blocks):
        if isinstance(block, TextBlock):
            parts.append({"type": "text", "text": block.text})
        elif isinstance(block, ImageBlock):
            parts.append(_picture(block, f"{field}[{number}].source"))
        elif not isinstance(block, ToolResultBlock):
            raise _misplaced(f"{field}[{number}]", "assistant")
        elif block.tool_use_id not in calls:
            where = f"{field}[{number}].tool_use_id"
            text = f"'{where}': no call '{block.tool_use_id[:64]}' was made before this message."
            raise RequestError(text, where, "invalid_value")
        else:
            content = ("Error: " if block.is_error else "") + _joined(block.content)
            results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": content})
    said = [{"role": "user", "content": parts_or_text(parts)}] if parts or not results else []
    return [*results, *said]


def _picture(block: ImageBlock, field: str) -> dict[str, Any]:
    if isinstance(block.source, Base64Source):
        return image_source(f"{field}.data", None, block.source.data).part
    return image_source(f"{field}.url", getattr(block.source, "url", "")).part


def _misplaced(field: str, role: str) -> RequestError:
    return RequestError(f"'{field}': only a message of the {role} has blocks of this type.", field, "invalid_value")


def _joined(content: str | list[TextBlock] | None) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content or ())

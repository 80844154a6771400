"""Functions that a model may call, and forms that an answer must have: what chat completions, Responses and Ollama
share."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from axpress.core.errors import RequestError
from axpress.core.structured_output.output_spec import Body, JsonObject, JsonSchema

from ..serving.generation_spec import Function, Tools
from .fields import Strict, Text, encodable, type_of

MAX_TOOLS = 128
MAX_SCHEMA_SIZE = 1 << 18
"""Characters of one JSON schema, roughly."""
MAX_SCHEMA_DEPTH = 48


def _bounded(document: dict[str, Any]) -> dict[str, Any]:
    """The JSON object, if it is plain JSON of bounded size and depth. Raises ValueError."""
    left, stack = MAX_SCHEMA_SIZE, [(document, 0)]
    while stack:
        value, depth = stack.pop()
        left -= 2
        if depth > MAX_SCHEMA_DEPTH:
            raise ValueError(f"nested deeper than {MAX_SCHEMA_DEPTH} levels")
        if isinstance(value, str):
            left -= len(encodable(value))
        elif isinstance(value, dict):
            left -= sum([len(encodable(key)) for key in value])
            stack += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            stack += [(inner, depth + 1) for inner in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number in it is not finite")
        if left < 0:
            raise ValueError(f"larger than {MAX_SCHEMA_SIZE} characters")
    return document


SchemaObject = Annotated[dict[str, Any], AfterValidator(_bounded)]
"""A JSON schema, or any JSON object; what is in it is judged when the grammar is made of it."""


def _schema_or_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("not a JSON schema: the text is not JSON") from None


SchemaOrText = Annotated[SchemaObject, BeforeValidator(_schema_or_text, json_schema_input_type=dict[str, Any] | str)]
"""A JSON schema, or its JSON as a string."""

FunctionName = Annotated[str, Field(min_length=1, max_length=64, pattern="^[a-zA-Z0-9_-]+$")]


class NamedFunction(Strict):
    """Just a function's name."""

    name: FunctionName


class FunctionDefinition(Strict):
    """A function. `strict` is accepted either way: arguments always match `parameters`."""

    name: FunctionName
    description: Text | None = None
    parameters: SchemaObject | None = None
    strict: bool | None = None

    def function(self) -> Function:
        """In neutral form."""
        return Function(self.name, self.description, self.parameters)


class ChatTool(Strict):
    """A function as chat completions and Ollama wrap it."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedTool(Strict):
    """The tool choice that names a function, chat completions' form."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Strict):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(fail_fast=True, min_length=1, max_length=MAX_TOOLS)]


class AllowedToolChoice(Strict):
    """The tool choice that allows some of the tools, chat completions' form."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolMode = Literal["none", "auto", "required"]


def tool_choice_kind(value: Any) -> str:
    """Discriminator of tool choices: a word, or an object of some type."""
    if not isinstance(value, dict | Strict):
        return "<word>"
    return "<allowed>" if type_of(value) == "allowed_tools" else "<named>"


ToolChoice = Annotated[
    Annotated[ToolMode, Tag("<word>")]
    | Annotated[NamedTool, Tag("<named>")]
    | Annotated[AllowedToolChoice, Tag("<allowed>")],
    Discriminator(tool_choice_kind),
]


def tools_asked(
    functions: Sequence[Function],
    choice: ToolMode | None = None,
    only: Sequence[str] = (),
    *,
    parallel: bool | None = None,
    fields: tuple[str, str] = ("tools", "tool_choice"),
) -> Tools | None:
    """The tools of a request in neutral form; None where there are none.

    `only`: names to which the choice is limited. `fields`: how the request calls functions and choice, for
    RequestErrors."""
    names = [function.name for function in functions]
    for index, name in enumerate(names):
        if name in names[:index]:
            text = f"'{fields[0]}': two functions are named '{name}'."
            raise RequestError(text, f"{fields[0]}[{index}]", "invalid_value")
    for name in only:
        if name not in names:
            raise RequestError(f"'{fields[1]}': '{name}' is not among '{fields[0]}'.", fields[1], "invalid_value")
    if not functions:
        if choice == "required":
            raise RequestError(f"'{fields[1]}' needs '{fields[0]}' to choose from.", fields[1], "invalid_value")
        return None
    return Tools(tuple(functions), choice or "auto", tuple(only), parallel is not False)


def chat_tools(tools: Sequence[ChatTool] | None, choice: Any, parallel: bool | None) -> Tools | None:
    """`tools`, `tool_choice` and `parallel_tool_calls` of chat completions in neutral form. A named function is called
    once."""
    functions = [tool.function.function() for tool in tools or ()]
    if isinstance(choice, NamedTool):
        return tools_asked(functions, "required", [choice.function.name], parallel=False)
    if isinstance(choice, AllowedToolChoice):
        allowed = choice.allowed_tools
        return tools_asked(functions, allowed.mode, [tool.function.name for tool in allowed.tools], parallel=parallel)
    return tools_asked(functions, choice, parallel=parallel)


class SchemaFormat(Strict):
    """The `json_schema` of a response format, or Responses' text format without its type. `strict` is accepted either
    way: the answer always matches. Without a schema: any JSON object."""

    name: FunctionName
    description: Text | None = None
    schema_: SchemaObject | None = Field(default=None, alias="schema")
    strict: bool | None = None

    def body(self, field: str) -> Body:
        """What the answer must look like; `field`: what the schema is called in errors."""
        return JsonObject() if self.schema_ is None else JsonSchema(self.schema_, field)


class TextFormat(Strict):
    """Anything."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """Any JSON object. The messages need not mention JSON."""

    type: Literal["json_object"]


class JsonSchemaFormat(Strict):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    json_schema: SchemaFormat


class OtherFormat(Strict):
    """None of the above."""

    type: Literal["text", "json_object", "json_schema"]


def format_kind(value: Any) -> str:
    """Discriminator of response formats."""
    kind = type_of(value)
    return f"<{kind}>" if kind in ("text", "json_object", "json_schema") else "<other>"


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonObjectFormat, Tag("<json_object>")]
    | Annotated[JsonSchemaFormat, Tag("<json_schema>")]
    | Annotated[OtherFormat, Tag("<other>")],
    Discriminator(format_kind),
]


def format_body(response_format: Any, field: str = "response_format") -> Body | None:
    """What a response format of chat completions asks of the answer."""
    if isinstance(response_format, JsonObjectFormat):
        return JsonObject()
    if isinstance(response_format, JsonSchemaFormat):
        return response_format.json_schema.body(f"{field}.json_schema.schema")
    return None

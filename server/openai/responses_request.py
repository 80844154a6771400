"""POST /v1/responses. Where nothing is stored every request carries its whole conversation."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import AfterValidator, Discriminator, Field, Tag

from axpress.core.errors import RequestError
from axpress.core.structured_output.output_spec import Body, JsonObject

from ..schema.fields import MaxTokens, Metadata, Strict, Text, TopLogprobs, kind, type_of
from ..schema.reasoning import Effort, thinking_asked
from ..schema.tools import (
    MAX_TOOLS,
    FunctionDefinition,
    FunctionName,
    JsonObjectFormat,
    OtherFormat,
    SchemaFormat,
    SchemaObject,
    TextFormat,
    ToolMode,
    format_kind,
    tool_choice_kind,
    tools_asked,
)  # fmt: skip
from ..serving.generation_spec import Function, Tools
from .common_request import OpenAIRequest
from .response_items import Items

LOGPROBS = "message.output_text.logprobs"


def _not_background(value: bool) -> bool:
    if value:
        raise ValueError("nothing is answered in the background here: stream, or wait for the answer")
    return value


def _writable(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        orjson.dumps(schema)
    except TypeError:
        raise ValueError("an integer in it has more than 64 bits, and answers repeat it") from None
    return schema


RepeatedSchema = Annotated[SchemaObject, AfterValidator(_writable)]
"""A JSON schema that the answer has in it again."""


class FunctionTool(FunctionDefinition):
    """A function. Its arguments always match `parameters`, `strict` or not."""

    type: Literal["function"]
    parameters: RepeatedSchema | None = None


class OtherTool(Strict):
    """A tool that the server would have to run: refused, by its type."""

    type: Literal["function"]


def _tool_kind(value: Any) -> str:
    return "<function>" if type_of(value) == "function" else "<other>"


Tool = Annotated[
    Annotated[FunctionTool, Tag("<function>")] | Annotated[OtherTool, Tag("<other>")], Discriminator(_tool_kind)
]


class NamedFunctionTool(Strict):
    """The tool choice that names a function."""

    type: Literal["function"]
    name: FunctionName


class AllowedTools(Strict):
    """The tool choice that allows some of the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedFunctionTool], Field(fail_fast=True, min_length=1, max_length=MAX_TOOLS)]


ToolChoice = Annotated[
    Annotated[ToolMode, Tag("<word>")]
    | Annotated[NamedFunctionTool, Tag("<named>")]
    | Annotated[AllowedTools, Tag("<allowed>")],
    Discriminator(tool_choice_kind),
]


class JsonSchemaFormat(SchemaFormat):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    schema_: RepeatedSchema = Field(alias="schema")


Format = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonObjectFormat, Tag("<json_object>")]
    | Annotated[JsonSchemaFormat, Tag("<json_schema>")]
    | Annotated[OtherFormat, Tag("<other>")],
    Discriminator(format_kind),
]


class TextConfig(Strict):
    """What the text of the answer must look like; it does at any temperature. Where a call is required, there is no
    text."""

    harmless: ClassVar[dict[str, str]] = {"verbosity": "medium is what comes anyway; nothing else is accepted"}

    format: Format | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Strict):
    """`summary` is refused: reasoning comes as it is."""

    effort: Effort | None = None
    """none: no reasoning; minimal, low, medium: at most 64, 256, 1,024 tokens of it; high: no bound of its own."""
    summary: None = None
    generate_summary: None = None


class ResponseStreamOptions(Strict):
    """include_obfuscation true is refused: nothing is padded here."""

    include_obfuscation: Literal[False] | None = None


Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class ResponsesRequest(OpenAIRequest):
    """POST /v1/responses: the fields are all those of OpenAI, and what local servers share."""

    refused: ClassVar[dict[str, str]] = {
        "conversation": "stored conversation; send it whole as 'input'",
        "prompt": "stored prompt template; send 'instructions' and 'input'",
        "background_options": "answers in the background",
        "context_management": "shortening of conversations",
        "moderation": "moderation",
        "prompt_cache_retention": "prompt cache retention",
        "prompt_cache_options": "prompt cache options",
        "access_programs": "access programs",
        "image": "images",
    }
    harmless: ClassVar[dict[str, str]] = {
        "background": "false is what happens; true is refused",
        "truncation": "disabled is what happens; auto is refused",
        "max_tool_calls": "counts calls of tools that a server runs itself; there are none here",
        "metadata": "labels of the caller's own, echoed in the answer and stored with it only; never logged",
        "user": "a label of the caller's own, echoed in the answer and stored with it only; never logged",
        "safety_identifier": "a label of the caller's own, echoed in the answer and stored with it only; never logged",
    }

    input: Annotated[Annotated[Text, Tag("<text>")] | Annotated[Items, Tag("<list>")], Discriminator(kind)]
    """A text of the user's, or the conversation so far. Items of an answer are sent back as they came."""
    instructions: Text | None = None
    """Goes before `input`, together with a system message that comes first there."""
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: MaxTokens | None = None
    """Reasoning and calls count. -1: as many as the context holds, as where nothing is said."""
    text: TextConfig | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    """Functions only; tools that a server runs itself are refused."""
    tool_choice: ToolChoice | None = None
    """required, or a function's name (called once): calls are all that comes. none: the model is not told of the
    tools."""
    parallel_tool_calls: bool | None = None
    """false: at most one call."""
    reasoning: Reasoning | None = None
    include: Annotated[list[Includable], Field(fail_fast=True, max_length=16)] | None = None
    """message.output_text.logprobs is obeyed. Of reasoning.encrypted_content nothing follows: reasoning items hold
    their text, and can be sent back. The others are of tools and contents that do not exist here."""
    top_logprobs: TopLogprobs | None = None
    """Log-probabilities of the text's tokens and of so many likely others."""
    service_tier: Literal["auto", "default", "flex"] | None = None
    """flex: in the background of all other requests and without pushing their prompts out of the cache."""
    previous_response_id: Annotated[Text, Field(max_length=256)] | None = None
    """A stored response to go on from: its input and its output come before `input`; its instructions do not. Refused
    where nothing is stored."""
    store: bool | None = None
    """false: the answer is not stored. Where the server stores nothing (no --store-responses), true is refused."""
    # Harmless.
    background: Annotated[bool, AfterValidator(_not_background)] | None = None
    truncation: Literal["disabled"] | None = None
    max_tool_calls: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    metadata: Metadata | None = None
    user: Text | None = None
    safety_identifier: Text | None = None

    def check(self) -> None:
        super().check()
        self.asked_tools()

    def refuse_store(self) -> None:
        """Raises RequestError where something is asked for that a server without a store cannot do."""
        if self.store:
            text = "'store': nothing is stored here: send false, or leave it out, and send the whole conversation each"
            raise RequestError(f"{text} time.", "store", "invalid_value")
        if self.previous_response_id is not None:
            text = "'previous_response_id' is not supported: this server has no stored answer to go on from; send the"
            text += " whole conversation as 'input'."
            raise RequestError(text, "previous_response_id", "unsupported_parameter")

    @property
    def logprobs(self) -> int | None:
        """How many likely tokens to tell beside each one; None: no log-probabilities."""
        wanted = self.top_logprobs is not None or LOGPROBS in (self.include or ())
        return (self.top_logprobs or 0) if wanted else None

    def asked_tools(self) -> Tools | None:
        """The tools in neutral form. Raises RequestError where functions and choice do not fit."""
        functions: list[Function] = [tool.function() for tool in self.tools or () if isinstance(tool, FunctionTool)]
        choice = self.tool_choice
        if isinstance(choice, NamedFunctionTool):
            return tools_asked(functions, "required", [choice.name], parallel=False)
        if isinstance(choice, AllowedTools):
            names = [tool.name for tool in choice.tools]
            return tools_asked(functions, choice.mode, names, parallel=self.parallel_tool_calls)
        return tools_asked(functions, choice, parallel=self.parallel_tool_calls)

    def asked_body(self) -> Body | None:
        """The form of the answer."""
        form = self.text.format if self.text is not None else None
        if isinstance(form, JsonObjectFormat):
            return JsonObject()
        return form.body("text.format.schema") if isinstance(form, JsonSchemaFormat) else None

    def asked_thinking(self) -> tuple[bool | None, int | None]:
        """Whether the model shall reason, and for how many tokens."""
        effort = self.reasoning.effort if self.reasoning is not None else None
        return thinking_asked(effort)[:2]

    def echoed(self, name: str) -> Any:
        """A field as the client sent it, for the answer that repeats it; None where it was not given."""
        value = getattr(self, name)
        if isinstance(value, list):
            return [item.model_dump(exclude_unset=True, by_alias=True) for item in value]
        return value.model_dump(exclude_unset=True, by_alias=True) if isinstance(value, Strict) else value

"""POST /v1/chat/completions, and the same under Azure's path."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from axpress.core.errors import RequestError
from axpress.core.structured_output.output_spec import Body

from ..schema.fields import Content, MaxTokens, Metadata, Stop, Strict, Text, TopLogprobs, joined
from ..schema.reasoning import Effort, TemplateArguments, ThinkingBudget, thinking_asked
from ..schema.tools import (
    MAX_TOOLS,
    ChatTool,
    FunctionDefinition,
    NamedFunction,
    ResponseFormat,
    ToolChoice,
    chat_tools,
    format_body,
    tools_asked,
)  # fmt: skip
from ..serving.generation_spec import Tools
from .common_request import CompletionFields
from .messages import Messages, check_messages


class Prediction(Strict):
    """Text that the answer is expected to repeat in large part. Where it does, the answer comes faster; it is never
    changed by it."""

    type: Literal["content"]
    content: Content

    @property
    def text(self) -> str:
        """The content as one string."""
        return joined(self.content)


def _function_choice_kind(value: Any) -> str:
    return "<named>" if isinstance(value, dict | Strict) else "<word>"


FunctionChoice = Annotated[
    Annotated[Literal["none", "auto"], Tag("<word>")] | Annotated[NamedFunction, Tag("<named>")],
    Discriminator(_function_choice_kind),
]


class ChatRequest(CompletionFields):
    """POST /v1/chat/completions: the fields are all those of OpenAI, and what local servers share."""

    refused: ClassVar[dict[str, str]] = {
        "audio": "audio output",
        "prompt_cache_retention": "prompt cache retention",
        "web_search_options": "web search",
        "chat_template": "chat template sent by the client",
        "guided_whitespace_pattern": "choice of white space in JSON",
        "best_of": "best_of",
        "echo": "echo",
        "suffix": "suffix",
        "stop_token_ids": "stop token ids",
        "min_tokens": "min_tokens",
    }
    harmless: ClassVar[dict[str, str]] = {
        "modalities": "text is what comes anyway",
        "store": "nothing is stored; true is refused",
        "verbosity": "medium is what comes anyway; nothing else is accepted",
        "user": "a label of the caller's own; never stored, never logged",
        "safety_identifier": "a label of the caller's own; never stored, never logged",
        "metadata": "labels of the caller's own; never stored, never logged",
    }

    messages: Messages
    max_tokens: MaxTokens | None = None
    """-1: as many as the context holds, as where nothing is said."""
    max_completion_tokens: MaxTokens | None = None
    """The same as `max_tokens`. Reasoning counts."""
    stop: Stop | None = None
    """Looked for in what follows the reasoning; cuts a form of the answer, too. Not a text that this model's calls are
    made of, where it may call."""
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    prediction: Prediction | None = None
    """Not with `n` above 1, not with tools. usage counts which of its tokens came true (accepted) and which were tried
    in vain (rejected); the latter are not part of completion_tokens."""
    tools: Annotated[list[ChatTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    """Arguments always match `parameters`."""
    tool_choice: ToolChoice | None = None
    """required, or a function's name (called once): calls are all that comes, and a form of the answer has nothing to
    say. none: the model is not told of the tools."""
    parallel_tool_calls: bool | None = None
    """false: at most one call."""
    functions: Annotated[list[FunctionDefinition], Field(fail_fast=True, min_length=1, max_length=MAX_TOOLS)] | None = (
        None
    )
    """The old form of `tools`; at most one call, which the answer carries as `function_call`."""
    function_call: FunctionChoice | None = None
    """The old form of `tool_choice`."""
    response_format: ResponseFormat | None = None
    """Guaranteed at any temperature, `strict` or not. An answer that reaches its limit of tokens says "length" and is
    not complete. It is the form of the text: where a call is required, there is none."""
    reasoning_effort: Effort | None = None
    """none: no reasoning; minimal, low, medium: at most 64, 256, 1,024 tokens of it; high: no bound of its own."""
    thinking_budget: ThinkingBudget | None = None
    """At most so many tokens of reasoning; goes before that of `reasoning_effort`. 0: none."""
    chat_template_kwargs: TemplateArguments | None = None
    service_tier: Literal["auto", "default", "flex"] | None = None
    """flex: in the background, after all other requests and without pushing their prompts out of the cache. Echoed in
    the answer."""
    ignore_eos: bool | None = None
    """Not with tools, a form of the answer or a bound on reasoning, which say themselves where it may end."""
    # Harmless.
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    verbosity: Literal["medium"] | None = None
    safety_identifier: Text | None = None
    metadata: Metadata | None = None

    def check(self) -> None:
        check_messages(self.messages)
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError("'top_logprobs' needs 'logprobs': true.", "top_logprobs", "invalid_value")
        super().check()
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            text = "'max_tokens' and 'max_completion_tokens' differ; send one of them."
            raise RequestError(text, "max_tokens", "invalid_value")
        self._check_forms()

    def _check_forms(self) -> None:
        """Tools and forms of the answer make sense, and a prediction beside them."""
        tools = self.asked_tools()
        self.asked_body()
        calls = tools is not None and tools.choice != "none"
        if self.prediction is not None and ((self.n or 1) > 1 or calls):
            text = "'prediction' does not go with tools."
            if not calls:
                text = "'prediction' needs 'n' to be 1: a prediction is of one answer."
            raise RequestError(text, "prediction", "unsupported_parameter")

    def asked_body(self) -> tuple[str, Body | None]:
        """The form of the answer and the field that asks for it. Raises RequestError for more than one."""
        return self.guided(("response_format", format_body(self.response_format)))

    def asked_tools(self) -> Tools | None:
        """The tools, in the new form or the old one. Raises RequestError where functions and choice do not fit."""
        if self.functions is None and self.function_call is None:
            return chat_tools(self.tools, self.tool_choice, self.parallel_tool_calls)
        if self.tools or self.tool_choice is not None:
            text = "'functions' is the old form of 'tools'; send one of them."
            raise RequestError(text, "functions", "invalid_value")
        fields, functions = ("functions", "function_call"), [f.function() for f in self.functions or ()]
        if isinstance(self.function_call, NamedFunction):
            return tools_asked(functions, "required", [self.function_call.name], parallel=False, fields=fields)
        return tools_asked(functions, self.function_call, parallel=False, fields=fields)

    def asked_thinking(self) -> tuple[bool | None, int | None, str]:
        """See `thinking_asked`."""
        enable = self.chat_template_kwargs.enable_thinking if self.chat_template_kwargs is not None else None
        return thinking_asked(self.reasoning_effort, enable, self.thinking_budget)

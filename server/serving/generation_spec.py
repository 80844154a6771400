"""What a request of any dialect asks for, in one form: between schemas, which know the spelling, and params, which
knows the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from axpress.core.structured_output.grammar_compiler import Body

    from ..openai.chat_request import ChatRequest
    from ..openai.completions_request import CompletionRequest


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the model may call. `parameters`: JSON schema of its arguments; None: any object."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions of a request. `only`: names of those that may be called; empty: all. `choice` "required": at least
    one call, and nothing else. `parallel` False: at most one call."""

    functions: tuple[Function, ...]
    choice: Literal["none", "auto", "required"] = "auto"
    only: tuple[str, ...] = ()
    parallel: bool = True

    @property
    def callable(self) -> tuple[Function, ...]:
        """Those that may be called."""
        if self.choice == "none":
            return ()
        return tuple(one for one in self.functions if not self.only or one.name in self.only)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSpec:
    """One request. None means "not said": the model's own default.

    Either `messages`, as chat templates know them (role, content, and where present tool_calls, tool_call_id, name,
    reasoning_content), or `prompts`, plain texts or token ids, each of which gets `n` answers. `sampling` has names and
    values of SamplingParams; `logit_bias` is still by text, as JSON has it. `body`: what the answer must look like.
    `thinking`: whether the model should reason first, at most `thinking_budget` tokens. `clip`: a max_tokens beyond the
    context is cut, not refused. `control_tokens`: what spells a control token in `prompts` is one. `context`: prompt
    and answer together have at most as many tokens, where that is less than the model's context. The `..._field` names
    are how the dialect calls things in its errors; `tools_field` has a place for the tool's index."""

    model: str | None = None
    stream: bool = False
    messages: list[dict[str, Any]] | None = None
    prompts: tuple[str | tuple[int, ...], ...] = ()
    control_tokens: bool = False
    tools: Tools | None = None
    body: Body | None = None
    thinking: bool | None = None
    thinking_budget: int | None = None
    n: int = 1
    max_tokens: int | None = None
    clip: bool = False
    context: int | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    logit_bias: Mapping[str, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    prediction: str | None = None
    prompt_cache_key: str | None = None
    low_priority: bool = False
    timings: bool = False
    max_tokens_field: str = "max_tokens"
    prompt_field: str = "messages"
    context_field: str = "context"
    thinking_field: str = "reasoning_effort"
    tools_field: str = "tools[{}].function.parameters"

    @property
    def wants_logprobs(self) -> bool:
        """Whether answers carry log-probabilities."""
        return self.sampling.get("logprobs") is not None


def said(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def sampling_of(request: ChatRequest | CompletionRequest, logprobs: int | None) -> dict[str, Any]:
    """`GenerationSpec.sampling` of a request that spells its fields as OpenAI and local servers do."""
    return said(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        seed=request.seed,
        logprobs=logprobs,
    )

"""What a request of any dialect asks for, in one form: between schemas, which know the spelling, and input_processor,
which knows the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from axpress.core.structured_output.output_spec import Body
    from axpress.core.vision.prepared import Detail


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
        return tuple(function for function in self.functions if not self.only or function.name in self.only)


@dataclass(frozen=True, slots=True)
class FieldNames:
    """How a dialect calls things, for errors. `tool_parameters` has a place for the tool's index."""

    prompt: str = "messages"
    max_tokens: str = "max_tokens"
    context: str = "context"
    thinking: str = "reasoning_effort"
    tool_parameters: str = "tools[{}].function.parameters"


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """The vectors that a request wants: of so many values (None: all). `truncate`: of a text that is longer than the
    context its beginning counts."""

    dimensions: int | None = None
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class RerankSpec:
    """What documents are to be ranked by: how well they meet `query`, as `instruction` says (None: the model's own
    words). Of each so many tokens count (None: all). `truncate`: of one that is longer than the context leaves room
    for, the beginning counts."""

    query: str
    instruction: str | None = None
    document_tokens: int | None = None
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A picture as a request has it in `field`: a `url`, data: or one to fetch, or else its bytes in base64."""

    field: str
    url: str | None = None
    encoded: str = ""
    detail: Detail = "auto"

    @property
    def part(self) -> dict[str, Any]:
        """As a part of a message's content."""
        return {"type": "image", "source": self}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSpec:
    """One request. None means "not said": the model's own default.

    Either `messages`, as chat templates know them (role, content, and where present tool_calls, tool_call_id, name,
    reasoning_content; content is a text, or with pictures a list of parts: texts and `ImageSource.part`), or `prompts`,
    plain texts or token ids, each of which gets `n` answers. `sampling` has names and values of SamplingParams, but
    `logit_bias` still by text, as JSON has it. `body`: what the answer must look like.
    `thinking`: whether the model should reason first, at most `thinking_budget` tokens. `clip`: a max_tokens beyond the
    context is cut, not refused. `control_tokens`: what spells a control token in `prompts` is one. `suffix`: text
    that comes after the answer to a prompt. `context`: prompt and answer together have at most as many tokens, where
    that is less than the model's context. `keep_alive`: so many seconds the model may be idle before it leaves the
    card, where models come and go. `embedding`: the prompts are texts to embed, `rerank`: documents to rank; nothing
    is generated then."""

    model: str | None = None
    stream: bool = False
    messages: list[dict[str, Any]] | None = None
    prompts: tuple[str | tuple[int, ...], ...] = ()
    control_tokens: bool = False
    embedding: EmbeddingSpec | None = None
    rerank: RerankSpec | None = None
    suffix: str | None = None
    tools: Tools | None = None
    body: Body | None = None
    thinking: bool | None = None
    thinking_budget: int | None = None
    n: int = 1
    max_tokens: int | None = None
    clip: bool = False
    context: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    prediction: str | None = None
    prompt_cache_key: str | None = None
    low_priority: bool = False
    keep_alive: float | None = None
    names: FieldNames = FieldNames()

    @property
    def generates(self) -> bool:
        """Whether answers are texts."""
        return self.embedding is None and self.rerank is None

    @property
    def images(self) -> list[ImageSource]:
        """The pictures of all messages, in their order."""
        contents = [message["content"] for message in self.messages or () if isinstance(message["content"], list)]
        return [part["source"] for content in contents for part in content if "source" in part]

    def without_sources(self) -> GenerationSpec:
        """The same without the pictures' data, which are megabytes; their places stay."""
        messages = [{**message, "content": _bare(message["content"])} for message in self.messages or ()]
        return replace(self, messages=messages) if self.messages is not None else self

    @property
    def wants_logprobs(self) -> bool:
        """Whether answers carry log-probabilities."""
        return self.sampling.get("logprobs") is not None


def _bare(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [{"type": "image"} if part["type"] == "image" else part for part in content]


def text_of(content: str | list[dict[str, Any]]) -> str:
    """What a message's content says in words."""
    return content if isinstance(content, str) else "".join([part.get("text", "") for part in content])


def without_none(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}

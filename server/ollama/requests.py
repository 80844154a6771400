"""Ollama's API: the bodies of /api/chat, /api/generate and /api/show."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag

from axpress.core.errors import RequestError

from ..schema.fields import (
    MAX_MESSAGES,
    Fraction,
    OnlyFalse,
    Penalty,
    RepetitionPenalty,
    RequestFields,
    Seed,
    StopString,
    Strict,
    Temperature,
    Text,
    TopK,
    TopLogprobs,
    kind,
)  # fmt: skip
from ..schema.images import PictureText
from ..schema.tools import MAX_TOOLS, ChatTool, SchemaObject

MAX_IMAGES = 4096
MAX_STOPS = 16
MAX_CALLS = 128
_NUMBER, _UNIT = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)", "(?:ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(f"[+-]?(?:{_NUMBER}|(?:{_NUMBER}{_UNIT})+)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _neutral(value: float, what: str) -> AfterValidator:
    """For options that only do nothing here."""

    def check(sent: float) -> float:
        if sent != value:
            raise ValueError(f"only {value} is taken here: this server has no {what}")
        return sent

    return AfterValidator(check)


def _token_count(value: int) -> int:
    if value == 0 or value < -2:
        raise ValueError("must be at least 1; -1 and -2 mean as many as the context holds")
    return value


def _window(value: int) -> int:
    if value < -1:
        raise ValueError("must be at least 0 (no penalty); -1 means all tokens")
    return value


def _duration(value: str) -> str:
    if len(value) > 64 or not _DURATION.fullmatch(value):
        raise ValueError("not a duration like '5m' or '1h30m', nor a number of seconds")
    return value


Count = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Options(RequestFields):
    """How to sample, and within which limits. What is not given is the model's own default, not Ollama's.

    The options are those of Ollama's model files, by name and number.
    """

    harmless: ClassVar[dict[str, str]] = {
        "num_keep": "no token is ever dropped from a context to go on",
        "num_batch": "prompts go through the card in its own chunks",
        "num_gpu": "all layers are on the card",
        "main_gpu": "there is one card",
        "num_thread": "the card computes, not the processor",
        "numa": "the card computes, not the processor",
        "low_vram": "memory is laid out when the server starts",
        "f16_kv": "the model's files say how keys and values are kept",
        "use_mmap": "the model is on the card already",
        "use_mlock": "the model is on the card already",
        "logits_all": "only logits that are needed are computed; answers do not depend on it",
        "mirostat": "0, the only value taken, is off",
        "mirostat_tau": "a setting of mirostat, which is off",
        "mirostat_eta": "a setting of mirostat, which is off",
        "tfs_z": "1, the only value taken, is off",
        "typical_p": "1, the only value taken, is off",
        "penalize_newline": "true, the only value taken, is what penalties do",
        "vocab_only": "false, the only value taken, is off",
        "embedding_only": "false, the only value taken, is off",
    }

    num_predict: (
        Annotated[Count, AfterValidator(_token_count), Field(json_schema_extra={"not": {"const": 0}, "minimum": -2})]
        | None
    ) = None
    """Tokens of the answer at most. More than the context holds, -1 and -2: as many as it holds."""
    num_ctx: Annotated[Count, Field(ge=1)] | None = None
    """Tokens of prompt and answer together, where that is less than the model's context; else the model's context
    counts. A prompt that is longer is refused, never cut."""
    temperature: Temperature | None = None
    top_k: TopK | None = None
    """0 and -1: off."""
    top_p: Fraction | None = None
    min_p: Fraction | None = None
    repeat_penalty: RepetitionPenalty | None = None
    repeat_last_n: Annotated[Count, AfterValidator(_window), Field(json_schema_extra={"minimum": -1})] | None = None
    """How many of the latest tokens `repeat_penalty` looks at; -1: all, 0: none, it is off."""
    presence_penalty: Penalty | None = None
    """This and frequency_penalty look at the tokens of the answer, whatever `repeat_last_n` is."""
    frequency_penalty: Penalty | None = None
    seed: Seed | None = None
    """-1: another one for each answer, as without."""
    stop: (
        Annotated[
            Annotated[StopString, Tag("<text>")]
            | Annotated[list[StopString], Field(fail_fast=True, max_length=MAX_STOPS), Tag("<list>")],
            Discriminator(kind),
        ]
        | None
    ) = None
    # Harmless, or only taken where they do nothing.
    num_keep: Count | None = None
    num_batch: Count | None = None
    num_gpu: Count | None = None
    main_gpu: Count | None = None
    num_thread: Count | None = None
    numa: bool | None = None
    low_vram: bool | None = None
    f16_kv: bool | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    logits_all: bool | None = None
    mirostat: Annotated[Count, _neutral(0, "mirostat"), Field(json_schema_extra={"const": 0})] | None = None
    mirostat_tau: Number | None = None
    mirostat_eta: Number | None = None
    tfs_z: Annotated[Number, _neutral(1, "tail-free sampling"), Field(json_schema_extra={"const": 1})] | None = None
    typical_p: Annotated[Number, _neutral(1, "typical sampling"), Field(json_schema_extra={"const": 1})] | None = None
    penalize_newline: Literal[True] | None = None
    vocab_only: OnlyFalse | None = None
    embedding_only: OnlyFalse | None = None


Images = Annotated[list[PictureText], Field(fail_fast=True, max_length=MAX_IMAGES)]


class CalledFunction(Strict):
    """A function that was called, with its arguments as an object."""

    harmless: ClassVar[dict[str, str]] = {"index": "our answers have it; the order of the list is what counts"}

    name: Annotated[Text, Field(min_length=1, max_length=64)]
    arguments: SchemaObject
    index: Annotated[int, Field(ge=0, lt=2**31)] | None = None


class Call(Strict):
    """A call that the model has made."""

    function: CalledFunction
    id: Annotated[Text, Field(max_length=256)] | None = None
    type: Literal["function"] | None = None


class OllamaMessage(Strict):
    """A message. Content may be absent or empty."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text | None = None
    thinking: Text | None = None
    """What the model reasoned before its answer; for the assistant's messages."""
    tool_calls: Annotated[list[Call], Field(fail_fast=True, max_length=MAX_CALLS)] | None = None
    """For the assistant's messages."""
    tool_name: Annotated[Text, Field(max_length=64)] | None = None
    """The function whose result this is; for messages of role tool."""
    tool_call_id: Annotated[Text, Field(max_length=256)] | None = None
    images: Images | None = None
    """Pictures in base64, which the model sees before the text; for messages of the user, and models with eyes."""


def _think_kind(value: Any) -> str:
    return "<level>" if isinstance(value, str) else "<switch>"


def _number_or_text(value: Any) -> str:
    return "<text>" if isinstance(value, str) else "<number>"


def _format_kind(value: Any) -> str:
    return "<schema>" if isinstance(value, dict) else "<word>"


Think = Annotated[
    Annotated[bool, Tag("<switch>")] | Annotated[Literal["low", "medium", "high"], Tag("<level>")],
    Discriminator(_think_kind),
]
Format = Annotated[
    Annotated[Literal["", "json"], Tag("<word>")] | Annotated[SchemaObject, Tag("<schema>")],
    Discriminator(_format_kind),
]
Duration = Annotated[
    str, AfterValidator(_duration), Field(json_schema_extra={"pattern": f"^(?:{_DURATION.pattern})$", "maxLength": 64})
]
KeepAlive = Annotated[
    Annotated[Number, Tag("<number>")] | Annotated[Duration, Tag("<text>")], Discriminator(_number_or_text)
]


class OllamaFields(RequestFields):
    """A request in which a field that is not supported asks for nothing where it is empty."""

    empty: ClassVar[tuple[Any, ...]] = (None, "", [], {}, 0, False)
    """What clients in Go send in fields that were not set."""

    @classmethod
    def read(cls, document: Any) -> Self:
        """As the base class, without such fields."""
        if isinstance(document, dict):
            document = {k: v for k, v in document.items() if k not in cls.refused or v not in cls.empty}
        return super().read(document)


class OllamaRequest(OllamaFields):
    """What /api/chat and /api/generate share."""

    harmless: ClassVar[dict[str, str]] = {
        "keep_alive": "where one model is served, or a fixed set: they stay loaded as long as the server runs",
        "truncate": "false, the only value taken, is what happens: a prompt that is too long is refused, never cut",
        "shift": "false, the only value taken, is what happens: an answer ends where the context does",
    }

    model: Text
    """The served model's name, with or without ":latest", or "default"."""
    stream: bool | None = None
    """null and absent mean true, as Ollama has it."""
    format: Format | None = None
    """"json": any JSON object; a JSON schema: the answer always matches it."""
    options: Options | None = None
    think: Think | None = None
    """Whether to reason first; with a level, for how long at most."""
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    # Harmless.
    keep_alive: KeepAlive | None = None
    truncate: OnlyFalse | None = None
    shift: OnlyFalse | None = None

    def check(self) -> None:
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError("'top_logprobs' needs 'logprobs': true.", "top_logprobs", "invalid_value")

    @property
    def keep_seconds(self) -> float | None:
        """`keep_alive` in seconds, endless where it is negative; None: not said."""
        return keep_seconds(self.keep_alive)


def keep_seconds(keep: float | str | None) -> float | None:
    """A `keep_alive` in seconds, endless where it is negative."""
    if isinstance(keep, str):
        parts = re.findall(f"({_NUMBER})({_UNIT})?", keep)
        seconds = sum(float(number) * _SECONDS[unit or "s"] for number, unit in parts)
        keep = -seconds if keep.startswith("-") else seconds
    return math.inf if keep is not None and keep < 0 else keep


_ROLES = {"thinking": "assistant", "tool_calls": "assistant", "tool_name": "tool", "tool_call_id": "tool"}
_ROLES["images"] = "user"
"""Fields that only messages of one role have."""


class OllamaChatRequest(OllamaRequest):
    """POST /api/chat. Without messages: only whether the model is there."""

    messages: Annotated[list[OllamaMessage], Field(fail_fast=True, max_length=MAX_MESSAGES)] | None = None
    tools: Annotated[list[ChatTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None

    def check(self) -> None:
        super().check()
        for index, message in enumerate(self.messages or ()):
            for name, role in _ROLES.items():
                if getattr(message, name) and message.role != role:
                    field = f"messages[{index}].{name}"
                    raise RequestError(f"'{field}': only messages of role {role} have it.", field, "invalid_value")


class OllamaGenerateRequest(OllamaRequest):
    """POST /api/generate. Without a prompt: only whether the model is there."""

    refused: ClassVar[dict[str, str]] = {
        "suffix": "suffix: no text before a given end",
        "template": "chat template sent by the client",
        "context": "context of token ids; send the conversation to /api/chat",
        "width": "image generation",
        "height": "image generation",
        "steps": "image generation",
    }

    prompt: Text | None = None
    images: Images | None = None
    """Pictures in base64, which the model sees before the prompt; for models with eyes. Not with `raw`."""
    system: Text | None = None
    raw: bool | None = None
    """true: the prompt goes to the model as it is, without its chat template. Not with `system`, nor with `think`."""

    def check(self) -> None:
        super().check()
        for name in ("system", "think", "images"):
            if self.raw and getattr(self, name):
                text = f"'{name}' does not go with 'raw': true, which leaves the chat template out."
                raise RequestError(text, name, "invalid_value")


class OllamaShowRequest(OllamaFields):
    """POST /api/show."""

    refused: ClassVar[dict[str, str]] = {
        "system": "models made by clients",
        "template": "models made by clients",
        "options": "models made by clients",
    }
    harmless: ClassVar[dict[str, str]] = {"verbose": "there are no longer lists to show"}

    model: Text | None = None
    name: Text | None = None
    """An older name of `model`."""
    verbose: bool | None = None

    def check(self) -> None:
        if (self.model or self.name) is None:
            raise RequestError("'model': This field is missing.", "model", "missing_required_parameter")

"""POST /v1/chat/completions, and the same under Azure's path."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from axpress.core.errors import RequestError

from .fields import (
    MAX_MESSAGES,
    Choices,
    Content,
    Fraction,
    LogitBias,
    Metadata,
    OnlyFalse,
    Penalty,
    RepetitionPenalty,
    RequestFields,
    Seed,
    Stop,
    StreamOptions,
    Strict,
    Temperature,
    Text,
    Tokens,
    TopK,
    TopLogprobs,
    joined,
)  # fmt: skip


class Message(Strict):
    """A message. The fields after `content` are what a client echoes from an answer: accepted only when empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    reasoning_content: None = None
    """Ours is null as long as no model here thinks apart."""

    @property
    def text(self) -> str:
        """The content as one string."""
        return joined(self.content)


class Prediction(Strict):
    """Text that the answer is expected to repeat in large part. Where it does, the answer comes faster; it is never changed by it."""

    type: Literal["content"]
    content: Content

    @property
    def text(self) -> str:
        """The content as one string."""
        return joined(self.content)


class ResponseFormat(Strict):
    """Only plain text."""

    type: Literal["text"]


class ChatRequest(RequestFields):
    """POST /v1/chat/completions."""

    refused: ClassVar[dict[str, str]] = {
        "audio": "audio output",
        "function_call": "function calling",
        "functions": "function calling",
        "prompt_cache_retention": "prompt cache retention",
        "reasoning_effort": "reasoning effort",
        "tools": "tool calling",
        "verbosity": "verbosity",
        "web_search_options": "web search",
        "chat_template": "a chat template sent by the client",
        "chat_template_kwargs": "template arguments sent by the client",
        "guided_json": "guided decoding",
        "guided_regex": "guided decoding",
        "guided_grammar": "guided decoding",
        "best_of": "best_of",
        "echo": "echo",
        "suffix": "suffix",
        "stop_token_ids": "stop token ids",
        "min_tokens": "min_tokens",
    }
    harmless: ClassVar[dict[str, str]] = {
        "response_format": "text is what comes anyway",
        "modalities": "text is what comes anyway",
        "store": "nothing is stored; true is refused",
        "tool_choice": "there are no tools to choose from",
        "parallel_tool_calls": "there are no tools to call",
        "user": "a label of the caller's own; never stored, never logged",
        "safety_identifier": "a label of the caller's own; never stored, never logged",
        "metadata": "labels of the caller's own; never stored, never logged",
    }

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    model: Text | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    n: Choices | None = None
    """The choices share the prompt's cache rows. With a `seed`, choice i is the answer that `choice_seed(seed, i)` gives alone."""
    prediction: Prediction | None = None
    """Not with `n` above 1. usage counts which of its tokens came true (accepted) and which were tried in vain (rejected); these are
    not part of completion_tokens."""
    prompt_cache_key: Text | None = None
    """Separates tenants: a cached prompt is found again only by requests with the same key (no key is one of them)."""
    service_tier: Literal["auto", "default", "flex"] | None = None
    """flex: in the background, after all other requests and without pushing their prompts out of the cache. Echoed in the answer."""
    # What local servers share beyond OpenAI.
    top_k: TopK | None = None
    """0 and -1: off."""
    min_p: Fraction | None = None
    repetition_penalty: RepetitionPenalty | None = None
    ignore_eos: bool | None = None
    timings: bool | None = None
    """true: the answer carries a `timings` object: counts, milliseconds and tokens/s of prompt and answer."""
    # Harmless.
    response_format: ResponseFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    store: OnlyFalse | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    user: Text | None = None
    safety_identifier: Text | None = None
    metadata: Metadata | None = None

    def check(self) -> None:
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError("'top_logprobs' needs 'logprobs': true.", "top_logprobs", "invalid_value")
        if self.stream_options is not None and not self.stream:
            raise RequestError("'stream_options' needs 'stream': true.", "stream_options", "invalid_value")
        if self.prediction is not None and (self.n or 1) > 1:
            raise RequestError("'prediction' needs 'n' to be 1: a prediction is of one answer.", "prediction", "unsupported_parameter")
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            text = "'max_tokens' and 'max_completion_tokens' differ; send one of them."
            raise RequestError(text, "max_tokens", "invalid_value")

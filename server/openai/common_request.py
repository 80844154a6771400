"""The fields that OpenAI's requests share: all of them, and both kinds of completions."""

from __future__ import annotations

from typing import Any, ClassVar

from axpress.core.errors import RequestError

from ..schema.fields import (
    Choices,
    Fraction,
    LogitBias,
    OnlyFalse,
    Penalty,
    RepetitionPenalty,
    RequestFields,
    Seed,
    Stop,
    StreamOptions,
    Temperature,
    Text,
    TopK,
)  # fmt: skip
from ..schema.formats import GuidedFields
from ..serving.generation_spec import without_none


class OpenAIRequest(RequestFields):
    """What chat completions, completions and Responses share."""

    model: Text | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    seed: Seed | None = None
    prompt_cache_key: Text | None = None
    """Separates tenants: a cached prompt is found again only by requests with the same key (no key is one of them)."""
    # What local servers share beyond OpenAI.
    top_k: TopK | None = None
    """0 and -1: off."""
    min_p: Fraction | None = None
    repetition_penalty: RepetitionPenalty | None = None

    sampled: ClassVar[tuple[str, ...]] = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
    """Fields that are parameters of the sampler, by the same names."""

    def sampling(self, logprobs: int | None) -> dict[str, Any]:
        """`GenerationSpec.sampling`, with the log-probabilities that are wanted."""
        return without_none(**{name: getattr(self, name) for name in self.sampled}, logprobs=logprobs)

    def check(self) -> None:
        if getattr(self, "stream_options", None) is not None and not self.stream:
            raise RequestError("'stream_options' needs 'stream': true.", "stream_options", "invalid_value")


class CompletionFields(GuidedFields, OpenAIRequest):
    """What chat completions and completions share beyond that."""

    stream_options: StreamOptions | None = None
    stop: Stop | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    n: Choices | None = None
    """The choices share the prompt's cache rows. With a `seed`, choice i is the answer that `choice_seed(seed, i)`
    gives alone."""
    ignore_eos: bool | None = None
    timings: bool | None = None
    """true: the answer carries a `timings` object: counts, milliseconds and tokens/s of prompt and answer."""
    # Harmless.
    store: OnlyFalse | None = None
    user: Text | None = None

    sampled = (*OpenAIRequest.sampled, "presence_penalty", "frequency_penalty", "logit_bias")

    @property
    def include_usage(self) -> bool:
        """Whether a stream shall end with its usage."""
        return bool(self.stream_options is not None and self.stream_options.include_usage)

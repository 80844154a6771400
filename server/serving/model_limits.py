"""What of the served model a request is checked against, before anything is computed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from axpress.core.errors import RequestError
from axpress.core.model_files.embedding_models import vector_sizes
from axpress.core.request import SamplingParams

from .model_names import ModelNames

if TYPE_CHECKING:
    from axpress.core.engine.engine_group import AnyEngine
    from axpress.core.model_files.model_package import SamplingDefaults

MAX_CHOICES = 8
"""Answers that one request may ask for with `n`: each holds a place in the queue, and cache rows, of its own."""
SHRINKS = 4
"""Times, at most, that a tokenizer makes a text shorter before it takes it apart (Unicode's normal forms)."""


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """`names`: under which the model is served. `max_choices`: answers of one prompt; `max_together`: answers that the
    engine takes at one time, all prompts of a request together; `max_characters`: a prompt of more is too long,
    whatever is in it. `embedding_sizes`: how many values an embedding may have, all of them last."""

    names: ModelNames
    vocab_size: int
    context_length: int
    defaults: SamplingParams
    max_choices: int = MAX_CHOICES
    max_together: int = MAX_CHOICES
    max_characters: int = 1 << 62
    embedding_sizes: Sequence[int] = ()


def model_limits(engine: AnyEngine, names: ModelNames, max_together: int) -> ModelLimits:
    """Limits of the model that `engine` has open, served under `names`; it takes `max_together` requests at a time."""
    info, defaults = engine.info, sampling_defaults(engine.package.post_config)
    longest = max(map(len, engine.text.pieces.data))
    return ModelLimits(
        names, info.vocab_size, info.context_length, defaults, min(MAX_CHOICES, max_together), max_together,
        max_characters=SHRINKS * longest * info.context_length,
        embedding_sizes=vector_sizes(engine.package.matryoshka, info.embedding_size),
    )  # fmt: skip


def sampling_defaults(config: SamplingDefaults | None) -> SamplingParams:
    """A package's post_config.json as SamplingParams, used where a request is silent; what the file does not say stays
    neutral."""
    return SamplingParams(**config.said()) if config is not None else SamplingParams()  # type: ignore[arg-type]


def check_together(count: int, limits: ModelLimits) -> None:
    """Raises RequestError where several prompts ask for more answers than the engine ever takes at one time."""
    if count > limits.max_together:
        text = (
            f"The prompts ask for {count} answers together; this server takes at most {limits.max_together} at a time."
        )
        raise RequestError(text, "prompt", "invalid_value")

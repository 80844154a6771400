"""From a request for embeddings to the engine's: each text as the model wants it, and how long its vector is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.model_files.embedding_models import END_OF_TEXT
from axpress.core.request import GenerationRequest

from .generation_spec import EmbeddingSpec, GenerationSpec
from .model_limits import ModelLimits
from .prompts import SLACK, SLICE, check_length, check_size, check_tokens

if TYPE_CHECKING:
    from axpress.core.tokenizer.tokenizer import Tokenizer

    from .served_model import ServedModel


def embedding_requests(
    spec: GenerationSpec, wish: EmbeddingSpec, served: ServedModel, cache_salt: bytes, client: bytes
) -> list[GenerationRequest]:
    """One for each text. Raises RequestError, ContextOverflow."""
    limits, text = served.limits, served.engine.text
    size = _vector_size(wish, limits)
    if not wish.truncate:
        check_size(spec, limits.max_characters)
        check_length(spec, text, limits.context_length)
    end = text.encode_control(END_OF_TEXT)
    prompts = []
    for index, prompt in enumerate(spec.prompts):
        name = f"{spec.names.prompt}[{index}]" if len(spec.prompts) > 1 else spec.names.prompt
        prompts.append(_ids(prompt, name, text, limits, end))
    context = min(limits.context_length, spec.context or limits.context_length)
    return [
        GenerationRequest(
            _within(ids, context, wish.truncate, spec, limits), dimensions=size, cache_salt=cache_salt, client=client
        )
        for ids in prompts
    ]


def _vector_size(wish: EmbeddingSpec, limits: ModelLimits) -> int:
    sizes = limits.embedding_sizes
    if wish.dimensions is None or wish.dimensions in sizes:
        return wish.dimensions or sizes[-1]
    if len(sizes) == 1:
        can = f"gives {sizes[-1]} values and was not trained for shorter vectors: leave the field out"
    elif isinstance(sizes, range):
        can = f"was trained for vectors of {sizes[0]} to {sizes[-1]} values"
    else:
        can = f"was trained for vectors of {', '.join(map(str, sizes))} values"
    raise RequestError(f"'dimensions' is {wish.dimensions}; this model {can}.", "dimensions", "invalid_value")


def _ids(prompt: str | tuple[int, ...], name: str, text: Tokenizer, limits: ModelLimits, end: int) -> list[int]:
    """The text's ids, with the token that the model was trained to gather its meaning in."""
    if isinstance(prompt, str):
        ids = text.encode(beginning(prompt, text, limits.context_length))
    else:
        check_tokens(prompt, name, limits.vocab_size)
        ids = list(prompt)
    return ids if ids[-1:] == [end] else [*ids, end]


def beginning(prompt: str, text: Tokenizer, num_tokens: int) -> str:
    """As much of a text as has more than `num_tokens` tokens; all of one that has fewer. Long ones are counted slice by
    slice, in favour of the text."""
    count = 0
    for stop in range(SLICE, len(prompt), SLICE):
        count += len(text.encode(prompt[stop - SLICE : stop])) - SLACK
        if count > num_tokens:
            return prompt[:stop]
    return prompt


def _within(ids: list[int], context: int, cut: bool, spec: GenerationSpec, limits: ModelLimits) -> list[int]:
    """The ids, where they are no more than the context holds; else its beginning with the end token, or an error."""
    if len(ids) <= context:
        return ids
    if cut:
        return [*ids[: context - 1], ids[-1]]
    which = "this model's context" if context == limits.context_length else f"'{spec.names.context}'"
    name = spec.names.prompt
    raise ContextOverflow(f"'{name}' takes {len(ids)} tokens; {which} is {context} tokens. Shorten it.", name)

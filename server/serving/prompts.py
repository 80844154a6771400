"""Plain prompts, for the dialects that have them: texts and token ids as the model sees them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from axpress.core.errors import ContextOverflow, RequestError

from .generation_spec import GenerationSpec

if TYPE_CHECKING:
    from axpress.core.tokenizer.tokenizer import Tokenizer


def check_size(spec: GenerationSpec, max_characters: int) -> None:
    """Raises ContextOverflow for a prompt of more than `max_characters`, which can be no fewer tokens than the context
    holds: before seconds are spent on laying it out and counting them."""
    size = max((len(one) for one in spec.prompts if isinstance(one, str)), default=0)
    size += sum(len(one["content"].strip()) for one in spec.messages or ())
    if spec.tools is not None and spec.tools.choice != "none":
        size += sum(len(json.dumps(one.parameters)) for one in spec.tools.functions)
    for name, count in ((spec.prompt_field, size), ("prediction", len(spec.prediction or ""))):
        if count > max_characters:
            what = (
                f"'{name}' and the functions" if spec.tools is not None and name == spec.prompt_field else f"'{name}'"
            )
            text = f"{what}: {count} characters; this model's context holds fewer than {max_characters}. Shorten them."
            raise ContextOverflow(text, name)


def plain_prompts(spec: GenerationSpec, text: Tokenizer, vocab_size: int) -> list[list[int]]:
    """The ids of each of `spec.prompts`. Raises RequestError, naming the prompt, where one is empty or has ids that no
    token has.

    Texts begin with the model's begin token, where it has one, and are text throughout: what looks like a control token
    is not one, but for `spec.control_tokens`. Whoever wants no begin token sends ids."""
    names = (
        [spec.prompt_field]
        if len(spec.prompts) == 1
        else [f"{spec.prompt_field}[{i}]" for i in range(len(spec.prompts))]
    )
    control = spec.control_tokens
    return [_ids(prompt, name, text, vocab_size, control) for prompt, name in zip(spec.prompts, names, strict=True)]


def _ids(prompt: str | tuple[int, ...], name: str, text: Tokenizer, vocab_size: int, control: bool) -> list[int]:
    if isinstance(prompt, str):
        ids = text.encode(prompt, control=control)
        if ids[: len(text.begin)] != text.begin:  # a prompt with control tokens may have it
            ids = text.begin + ids
        if not ids:
            raise RequestError(
                f"'{name}' is empty: this model needs at least one token to go on from.", name, "invalid_value"
            )
        return ids
    check_tokens(prompt, name, vocab_size)
    return list(prompt)


def check_tokens(tokens: Sequence[int], name: str, vocab_size: int) -> None:
    """Raises RequestError that names the first id that no token of the model has."""
    for index, token in enumerate(tokens):
        if not 0 <= token < vocab_size:
            shown = f"{name}[{index}]"
            raise RequestError(
                f"'{shown}': {token} is no token id of this model (0 to {vocab_size - 1}).", shown, "invalid_value"
            )

"""Prompts as the model sees them: conversations laid out by its chat template, plain texts and token ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from axpress.core.errors import ContextOverflow, RequestError
from axpress.core.structured_output.output_spec import Thinking

from .chat_format import ChatFormat
from .generation_spec import GenerationSpec, text_of

if TYPE_CHECKING:
    from axpress.core.request import ImageInput
    from axpress.core.tokenizer.tokenizer import Tokenizer

    from .pictures import Pictures
    from .served_model import ServedModel


SHORT_CHARACTERS = 4
"""A token has more of them in most texts: what is shorter is not counted twice."""
SLICE, SLACK = 1 << 14, 16
"""Characters counted at a time, and tokens by which cutting there may make them more."""


def check_size(spec: GenerationSpec, max_characters: int) -> None:
    """Raises ContextOverflow for a prompt of more than `max_characters`, which can be no fewer tokens than the context
    holds: before seconds are spent on laying it out and counting them."""
    size = max((len(prompt) for prompt in spec.prompts if isinstance(prompt, str)), default=0) + len(spec.suffix or "")
    size += sum(len(text_of(message["content"]).strip()) for message in spec.messages or ())
    prompt = f"'{spec.names.prompt}'"
    if spec.tools is not None:
        prompt += " and the functions"
        if spec.tools.choice != "none":
            size += sum(len(text) for text in _tool_texts(spec))
    for field, what, count in (
        (spec.names.prompt, prompt, size),
        ("prediction", "'prediction'", len(spec.prediction or "")),
    ):
        if count > max_characters:
            text = f"{what}: {count} characters; this model's context holds fewer than {max_characters}. Shorten them."
            raise ContextOverflow(text, field)


def check_length(spec: GenerationSpec, text: Tokenizer, context_length: int) -> None:
    """Raises ContextOverflow for a long prompt as soon as that many of its characters are read that the context is
    full: nobody else's prompt waits until all of it is.

    Counted slice by slice, blanks included, in favour of the prompt; one that passes is counted exactly later."""
    alone = [[prompt, spec.suffix or ""] for prompt in spec.prompts if isinstance(prompt, str)]
    for texts in (*alone, [text_of(message["content"]) for message in spec.messages or ()] + _tool_texts(spec)):
        if sum(map(len, texts)) < SHORT_CHARACTERS * context_length:
            continue
        count = 0
        for whole in texts:
            for start in range(0, len(whole), SLICE):
                count += max(0, len(text.encode(whole[start : start + SLICE])) - SLACK)
                if count > context_length:
                    message = f"'{spec.names.prompt}' takes more than {count} tokens; this model's context is"
                    raise ContextOverflow(f"{message} {context_length} tokens. Shorten it.", spec.names.prompt)


def _tool_texts(spec: GenerationSpec) -> list[str]:
    """What the prompt says of the functions, nearly."""
    if spec.tools is None or spec.tools.choice == "none":
        return []
    return [
        part
        for function in spec.tools.functions
        for part in (function.name, function.description or "", json.dumps(function.parameters))
    ]


def conversation(spec: GenerationSpec, chat_format: ChatFormat) -> tuple[list[int], Thinking | None]:
    """See `ChatFormat.prompt`; what is wrong with the messages is told of the field that the dialect has them in."""
    try:
        return chat_format.prompt(spec)
    except RequestError as exc:
        field = spec.names.prompt
        if exc.param != "messages" or field == "messages":
            raise
        raise RequestError(str(exc).replace("'messages'", f"'{field}'"), field, exc.code) from None


def seen_conversation(
    spec: GenerationSpec, served: ServedModel, pictures: Pictures = ()
) -> tuple[list[int], tuple[ImageInput, ...], Thinking | None]:
    """As `conversation`, with all tokens of each picture in its place."""
    ids, thinking = conversation(spec, served.chat_format)
    if served.eyes is None or not pictures:
        return ids, (), thinking
    try:
        ids, images = served.eyes.expand(ids, pictures, partial(served.engine.text.encode, control=True))
    except RequestError as error:
        raise RequestError(f"'{spec.names.prompt}': {error}.", spec.names.prompt, error.code) from None
    return ids, images, thinking


def plain_prompts(spec: GenerationSpec, text: Tokenizer, vocab_size: int) -> list[list[int]]:
    """The ids of each of `spec.prompts`. Raises RequestError, naming the prompt, where one is empty or has ids that no
    token has.

    Texts begin with the model's begin token, where it has one, and are text throughout: what looks like a control token
    is not one, but for `spec.control_tokens`. Whoever wants no begin token sends ids. With `spec.suffix` the model is
    to fill the gap between both; one that has no tokens for that raises RequestError."""
    field, several = spec.names.prompt, len(spec.prompts) > 1
    names = [f"{field}[{i}]" if several else field for i in range(len(spec.prompts))]
    control = spec.control_tokens
    gap = _around_gap(spec.suffix, text)
    return [
        _ids(prompt, name, text, vocab_size, control, gap) for prompt, name in zip(spec.prompts, names, strict=True)
    ]


def _around_gap(suffix: str | None, text: Tokenizer) -> tuple[list[int], list[int]]:
    """What stands before and after a prompt where `suffix` follows the answer; nothing where there is none."""
    if suffix is None:
        return [], []
    tokens = text.gap_tokens()
    if tokens is None:
        message = "'suffix' is not supported: this model has no tokens for filling a gap (such as <|fim_prefix|>)."
        raise RequestError(message, "suffix", "unsupported_parameter")
    before, between, after = tokens
    return [before], [between, *text.encode(suffix), after]


def _ids(
    prompt: str | tuple[int, ...],
    name: str,
    text: Tokenizer,
    vocab_size: int,
    control: bool,
    gap: tuple[list[int], list[int]],
) -> list[int]:
    before, after = gap
    if isinstance(prompt, str):
        ids, begin = text.encode(prompt, control=control), text.begin
        if begin and ids[: len(begin)] == begin:  # a prompt with control tokens may have it
            ids = ids[len(begin) :]
        ids = [*begin, *before, *ids, *after]
        if not ids:
            message = f"'{name}' is empty: this model needs at least one token to go on from."
            raise RequestError(message, name, "invalid_value")
        return ids
    check_tokens(prompt, name, vocab_size)
    return [*before, *prompt, *after]


def check_tokens(tokens: Sequence[int], name: str, vocab_size: int) -> None:
    """Raises RequestError that names the first id that no token of the model has."""
    for index, token in enumerate(tokens):
        if not 0 <= token < vocab_size:
            field = f"{name}[{index}]"
            text = f"'{field}': {token} is no token id of this model (0 to {vocab_size - 1})."
            raise RequestError(text, field, "invalid_value")

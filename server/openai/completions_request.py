"""POST /v1/completions: plain prompts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Discriminator, Field, Tag

from axpress.core.errors import RequestError
from axpress.core.structured_output.output_spec import Body

from ..schema.fields import Choices, MaxTokens, Text
from ..schema.tools import ResponseFormat, format_body
from .common_request import CompletionFields

MAX_PROMPTS = 2048
"""OpenAI's, for texts to embed. Of prompts to go on from an engine takes far fewer together."""
DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""


def _prompt_kind(value: Any) -> str:
    """Discriminator of prompts: a text, texts, token ids, or lists of them."""
    if not isinstance(value, list):
        return "<text>"
    first = value[0] if value else 0
    return "<texts>" if isinstance(first, str) else "<lists>" if isinstance(first, list) else "<ids>"


TokenIds = Annotated[list[int], Field(fail_fast=True, min_length=1)]
"""Ids that the model has no token for are refused too, by their place in the list."""
Texts = Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPTS)]
IdLists = Annotated[list[TokenIds], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPTS)]
Prompt = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[Texts, Tag("<texts>")]
    | Annotated[TokenIds, Tag("<ids>")]
    | Annotated[IdLists, Tag("<lists>")],
    Discriminator(_prompt_kind),
]


def each_prompt(prompt: str | list[Any]) -> tuple[str | tuple[int, ...], ...]:
    """One for each prompt of a Prompt: text or ids."""
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt[0], int):
        return (tuple(prompt),)
    return tuple(one if isinstance(one, str) else tuple(one) for one in prompt)


class CompletionRequest(CompletionFields):
    """POST /v1/completions."""

    refused: ClassVar[dict[str, str]] = {
        "stop_token_ids": "stop token ids",
        "min_tokens": "min_tokens",
        "prompt_logprobs": "log-probabilities of prompts",
    }
    harmless: ClassVar[dict[str, str]] = {
        "best_of": "accepted where it equals n: all answers are given, none is chosen",
        "store": "nothing is stored; true is refused",
        "user": "a label of the caller's own; never stored, never logged",
    }

    prompt: Prompt
    """A text, token ids, or a list of either: each gets `n` answers. Texts are text throughout, also where they spell
    control tokens; but see `parse_special`."""
    suffix: Text | None = None
    """Text that comes after the answer, for models whose tokenizer has tokens for filling a gap; others refuse it."""
    max_tokens: MaxTokens | None = None
    """16 where the request does not say, as OpenAI has it; -1: as many as the context holds."""
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """Not with `echo`: prompts have no log-probabilities here."""
    echo: bool | None = None
    """true: the answer's text begins with the prompt."""
    response_format: ResponseFormat | None = None
    """Guaranteed at any temperature, `strict` or not. An answer that reaches its limit of tokens says "length" and is
    not complete."""
    parse_special: bool | None = None
    """true: what spells a control token in a prompt is one, for clients that lay out a conversation themselves."""
    ignore_eos: bool | None = None
    """Not with a form of the answer, which says itself where it ends."""
    # Harmless.
    best_of: Choices | None = None

    def check(self) -> None:
        super().check()
        if self.best_of is not None and self.best_of != (self.n or 1):
            text = "'best_of' must equal 'n': all answers are given, none is chosen among more."
            raise RequestError(text, "best_of", "unsupported_value")
        if self.echo and self.logprobs is not None:
            text = "'echo' with 'logprobs' is not supported: prompts have no log-probabilities here."
            raise RequestError(text, "echo", "unsupported_parameter")
        form, body = self.asked_body()
        if self.ignore_eos and body is not None:
            text = f"'ignore_eos' does not go with '{form}', which says where the answer ends."
            raise RequestError(text, "ignore_eos", "invalid_value")

    def asked_body(self) -> tuple[str, Body | None]:
        """The form of the answer and the field that asks for it. Raises RequestError for more than one."""
        return self.guided(("response_format", format_body(self.response_format)))

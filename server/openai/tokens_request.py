"""POST /tokenize and POST /detokenize, in vLLM's and llama.cpp's spelling."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from axpress.core.errors import RequestError

from ..schema.fields import RequestFields, Text
from ..schema.reasoning import Effort, TemplateArguments, thinking_asked
from ..schema.tools import MAX_TOOLS, ChatTool
from .messages import Messages, check_messages

MAX_IDS = 1 << 18


class TokenizeRequest(RequestFields):
    """POST /tokenize. One of `prompt`, `content` and `messages`: ids of a text, or of a conversation as chat
    completions lays it out."""

    refused: ClassVar[dict[str, str]] = {
        "chat_template": "chat template sent by the client",
        "continue_final_message": "going on with the client's last message",
    }
    harmless: ClassVar[dict[str, str]] = {
        "add_generation_prompt": "true is what happens: a conversation ends where an answer begins; false is refused"
    }
    model: Text | None = None
    prompt: Text | None = None
    """A text as /v1/completions takes it (vLLM's field): with the begin token of models that have one."""
    content: Text | None = None
    """A text (llama.cpp's field): without a begin token."""
    messages: Messages | None = None
    """As chat completions takes them, and with these fields of it:"""
    tools: Annotated[list[ChatTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: TemplateArguments | None = None
    add_generation_prompt: Literal[True] | None = None
    add_special_tokens: bool | None = None
    """Whether a text gets the begin token of models that have one."""
    add_special: bool | None = None
    """llama.cpp's name of `add_special_tokens`."""
    return_token_strs: bool | None = None
    """true: the answer's `token_strs` spells each token; U+FFFD stands for parts of characters."""
    with_pieces: bool | None = None
    """true: `tokens` has objects with `id` and `piece`: the token's text, or its bytes where it is a part of a
    character."""
    parse_special: bool | None = None
    """true: what spells a control token in a text is one, as with the field of this name at /v1/completions."""

    def check(self) -> None:
        sent = [name for name in ("prompt", "content", "messages") if getattr(self, name) is not None]
        if len(sent) != 1:
            text = "Send one of 'prompt', 'content' and 'messages'"
            if not sent:
                raise RequestError(f"{text}.", "prompt", "missing_required_parameter")
            raise RequestError(f"{text}, not {' and '.join(sent)}.", sent[1], "invalid_value")
        specials = [name for name in ("add_special_tokens", "add_special") if getattr(self, name) is not None]
        if len(specials) > 1:
            text = "'add_special' is another name of 'add_special_tokens'; send one of them."
            raise RequestError(text, "add_special", "invalid_value")
        specials += ["parse_special"] if self.parse_special is not None else []
        if self.messages is not None and specials:
            text = f"'{specials[0]}' is for texts; a conversation is laid out as the model's template says."
            raise RequestError(text, specials[0], "invalid_value")
        for name in ("tools", "reasoning_effort", "chat_template_kwargs", "add_generation_prompt"):
            if self.messages is None and getattr(self, name) is not None:
                raise RequestError(f"'{name}' needs 'messages'.", name, "invalid_value")
        check_messages(self.messages or ())
        self.asked_thinking()

    def asked_thinking(self) -> tuple[bool | None, int | None, str]:
        """See `thinking_asked`."""
        enable = self.chat_template_kwargs.enable_thinking if self.chat_template_kwargs is not None else None
        return thinking_asked(self.reasoning_effort, enable)

    @property
    def text(self) -> str | None:
        """The text, where it is one."""
        return self.prompt if self.prompt is not None else self.content

    @property
    def begins(self) -> bool:
        """Whether the text gets the begin token."""
        wish = self.add_special_tokens if self.add_special_tokens is not None else self.add_special
        return wish if wish is not None else self.prompt is not None


class DetokenizeRequest(RequestFields):
    """POST /detokenize."""

    model: Text | None = None
    tokens: Annotated[list[int], Field(fail_fast=True, max_length=MAX_IDS)]

"""Text to token ids and back, and messages to prompts, for the tokenizer files that come with a model."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RequestError
from .chat_template import CHATML, ChatTemplate, check_text
from .detokenizer import Detokenizer, StopChecker, check_stop
from .template_guard import ControlToken
from .tokenizer_files import Override, TokenizerFiles
from .vendor_tokenizer import is_vendor_file, open_vendor_tokenizer
from .vocabulary import JsonVocabulary, SentencePieceVocabulary, Vocabulary

__all__ = ["Detokenizer", "StopChecker", "Tokenizer", "check_stop"]


GAP_TOKENS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder
)
"""How tokenizers spell them."""


class Tokenizer:
    """A model's tokenizer and chat template. Safe to use from several threads at once.

    `vocab_size`: one more than the highest token id (the model's head may be wider). `eos_ids`: ids that end an answer.
    `special_ids`: ids left out of decoded text. `bos_id`: the id that begins a text, or None. `begin`: the ids that the
    model expects before a plain text that begins its context: the begin token, or nothing."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        template: ChatTemplate | None,
        eos_ids: frozenset[int],
        bos_id: int | None,
        begins: bool = False,
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self.pieces = vocabulary.pieces
        self.vocab_size = len(self.pieces.data)
        self.special_ids = self.pieces.special
        self.added_tokens = {c.text: c.id for c in vocabulary.control if not c.special}
        self.lead = " " if self.pieces.strip or self.pieces.strip_first else ""
        self.eos_ids = eos_ids
        self.bos_id = bos_id
        self._control = {token.text: token for token in sorted(vocabulary.control, key=lambda token: -len(token.text))}
        self.begin = [bos_id] if begins and bos_id is not None else []

    @classmethod
    def open(
        cls,
        tokenizer_path: Path,
        *,
        tokenizer_type: str | None = None,
        embedding_rows: int | None = None,
        eos_override: Override = None,
        bos_override: Override = None,
    ) -> Tokenizer:
        """Opens a directory of tokenizer files, or a tokenizer.json or tokenizer.model with its neighbours, or the
        vendor's tokenizer in one .txt file.

        For the last, `tokenizer_type` is the package's (None: told from the tokens), and `embedding_rows` how many
        tokens the model's embedding has (None: not checked). The overrides are ids or token texts (or lists of them)
        and replace what the files say. Raises PackageError, naming the file and what to do, for anything missing,
        malformed or unknown.
        """
        path = Path(tokenizer_path)
        vocabulary: Vocabulary
        if is_vendor_file(path):
            files, vocabulary, template = open_vendor_tokenizer(path, tokenizer_type, embedding_rows)
        else:
            files, template = TokenizerFiles.find(path), None
            vocabulary = _open_vocabulary(files)
        names = files.token_names()
        bos_id = files.bos_id(bos_override, vocabulary.ids)
        if bos_override is not None:
            names["bos_token"] = next(text for text, token_id in vocabulary.ids.items() if token_id == bos_id)
        templates = files.templates() or ({} if template is None else {"default": template})
        if not templates and "<|im_start|>" in vocabulary.ids and "<|im_end|>" in vocabulary.ids:
            templates = {"default": CHATML}
        chat = ChatTemplate(templates, vocabulary.control, names, str(files.tokenizer.parent)) if templates else None
        eos_ids = files.eos_ids(eos_override, vocabulary.ids, vocabulary.pieces.special)
        return cls(vocabulary, chat, eos_ids, bos_id, files.begins(vocabulary.begins, names.get("bos_token")))

    @property
    def can_render(self) -> bool:
        """Whether `render` can work: the model has a chat template, or ChatML's tokens."""
        return self._template is not None

    def encode(self, text: str, *, control: bool = False) -> list[int]:
        """Ids of plain text, without a begin token; nothing in `text` becomes a special or other added token.

        `control`: what spells such a token is one, for prompts that were laid out by whoever sent them. Raises
        RequestError if `text` holds half of a surrogate pair."""
        parts: list[str | ControlToken] = [check_text(text, "prompt")]
        return self._vocabulary.encode(self._spelled(text) if control else parts)

    def _spelled(self, text: str) -> list[str | ControlToken]:
        """The control tokens that a text of whoever may write them spells, and what is between them."""
        if not self._control:
            return [text]
        spelled = re.split("(" + "|".join(map(re.escape, self._control)) + ")", text)
        return [self._control.get(part, part) for part in spelled if part]

    def encode_control(self, token: str) -> int:
        """The id of one token by its exact text, special ones too. Raises KeyError if there is none."""
        return self._vocabulary.ids[token]

    def has_control(self, token: str) -> bool:
        """Whether there is a token of just this text."""
        return token in self._vocabulary.ids

    def gap_tokens(self) -> tuple[int, int, int] | None:
        """The tokens before the text before a gap, before the text after it, and before what fills it; None where the
        model has none."""
        for before, between, after in GAP_TOKENS:
            if {before, between, after} <= self._control.keys():
                return self._control[before].id, self._control[between].id, self._control[after].id
        return None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        add_generation_prompt: bool = True,
        picture: str | None = None,
        **template_kwargs: Any,
    ) -> list[int]:
        """The ids of a conversation, laid out by the model's own chat template.

        `picture`: for templates that know text only: where a message's content is a list of parts, each of type image
        becomes this text, control tokens spelled. `template_kwargs` are variables for the template (tools,
        enable_thinking, ...). Control tokens come from the template alone (and from `picture`), never from strings in
        the arguments. Raises RequestError if there is no template, the template refuses the messages, or a string holds
        half of a surrogate pair.
        """
        if self._template is None:
            raise RequestError(
                "this model has no chat template (no chat_template.jinja, no chat_template in tokenizer_config.json,"
                " and no <|im_start|> token for ChatML), so it cannot chat; add the template of the original model to"
                " its package",
                "messages",
            )
        mark = secrets.token_hex(16)  # which no client can write
        if picture is not None:
            messages = [{**message, "content": _flat(message.get("content"), mark)} for message in messages]
        parts = self._template.render(messages, add_generation_prompt, template_kwargs)
        if picture is not None:
            shown = self._spelled(picture)
            parts = [piece for part in parts for piece in _in_place(part, mark, shown)]
        return self._vocabulary.encode(parts)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD, ids that no token has become nothing."""
        detokenizer = Detokenizer(self, skip_special_tokens)
        return "".join([detokenizer.push(i) for i in ids]) + detokenizer.flush()

    def detokenizer(self, *, skip_special_tokens: bool = True) -> Detokenizer:
        """A new incremental decoder for one answer."""
        return Detokenizer(self, skip_special_tokens)

    def id_to_text(self, token_id: int) -> str:
        """The text of one token within a text, special tokens by name; U+FFFD for a part of a character."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token within a text; empty for ids that no token has."""
        return self.pieces.data[token_id] if 0 <= token_id < self.vocab_size else b""


def _flat(content: Any, mark: str) -> Any:
    """A list of parts as one text, with a mark for each picture."""
    if not isinstance(content, list):
        return content
    return "".join([mark if part["type"] == "image" else part["text"] for part in content])


def _in_place(part: str | ControlToken, mark: str, shown: Sequence[str | ControlToken]) -> Iterator[str | ControlToken]:
    """A part of a prompt, with `shown` for each mark in it."""
    if isinstance(part, ControlToken):
        yield part
        return
    for number, text in enumerate(part.split(mark)):
        yield from shown if number else ()
        if text:
            yield text


def _open_vocabulary(files: TokenizerFiles) -> Vocabulary:
    added = files.added_tokens()
    if files.is_sentencepiece:
        return SentencePieceVocabulary(files.tokenizer, added, prefix_all=bool(files.config.get("legacy")))
    names = files.token_names().values()
    special = [name for value in names for name in (value if isinstance(value, list) else [value])]
    return JsonVocabulary(files.tokenizer, added, special)

"""The files around a tokenizer: where they are, and what they say about special tokens, ends of answers and
templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ..files import check_not_pointer, read_json

TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Special tokens that end an answer in known families; used only where no file says what does.
KNOWN_ENDS = (
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>", "<eos>", "</s>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)  # fmt: skip
Override = int | str | Sequence[int | str] | None


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """`tokenizer`: tokenizer.json or tokenizer.model; the parsed JSON files beside it are empty where there are
    none."""

    tokenizer: Path
    config: Mapping[str, Any]
    special_map: Mapping[str, Any]
    generation: Mapping[str, Any]

    @classmethod
    def find(cls, path: Path) -> TokenizerFiles:
        """`path` is a directory or the tokenizer file. Raises PackageError saying what is missing."""
        directory = path if path.is_dir() else path.parent
        tokenizer = _tokenizer_file(path)
        check_not_pointer(tokenizer)
        return cls(
            tokenizer,
            read_json(directory / "tokenizer_config.json", {}),
            read_json(directory / "special_tokens_map.json", {}),
            read_json(directory / "generation_config.json", {}),
        )

    @property
    def is_sentencepiece(self) -> bool:
        return self.tokenizer.suffix == ".model"

    def added_tokens(self) -> list[dict[str, Any]]:
        """The `added_tokens_decoder` of tokenizer_config.json as entries like those of tokenizer.json."""
        entries = self.config.get("added_tokens_decoder") or {}
        try:
            return [
                {"special": False} | dict(entry) | {"id": int(key), "content": str(entry["content"])}
                for key, entry in entries.items()
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PackageError(
                f"{self._in('tokenizer_config.json')}: added_tokens_decoder is malformed ({error!r})"
            ) from error

    def token_names(self) -> dict[str, Any]:
        """bos_token and so on with their texts, as templates read them; unset ones are left out."""
        both = {**self.special_map, **{k: v for k, v in self.config.items() if v is not None}}
        names: dict[str, Any] = {name: _content(both[name]) for name in TOKEN_NAMES if both.get(name) is not None}
        more = both.get("additional_special_tokens")
        if isinstance(more, list):
            names["additional_special_tokens"] = [_content(token) for token in more]
        return names

    def eos_ids(self, override: Override, ids: Mapping[str, int], special: frozenset[int]) -> frozenset[int]:
        """The ids that end an answer: `override` alone if it names any, else what the files say."""
        if override not in (None, (), []):
            return self._resolve(override, ids, "eos")
        found = set[int]()
        declared = self.generation.get("eos_token_id")
        if declared not in (None, []):
            found |= self._resolve(declared, ids, "eos_token_id of generation_config.json")
        else:
            found |= {ids[text] for text in KNOWN_ENDS if ids.get(text) in special}
        named = self.token_names().get("eos_token")
        return frozenset(found | ({ids[named]} if named is not None and named in ids else set()))

    def bos_id(self, override: Override, ids: Mapping[str, int]) -> int | None:
        """The id that begins a text, or None."""
        named = self.token_names().get("bos_token") if override is None else override
        if named is None or (override is None and named not in ids):
            return None
        return min(self._resolve(named, ids, "bos"))

    def begins(self, first: str | None, bos: str | None) -> bool:
        """Whether plain texts begin with the begin token: as tokenizer_config.json says, else as the tokenizer's own
        file does.

        `first`: the token that the tokenizer puts in front; "": it leaves that to the configuration, whose default is
        to put it."""
        said = self.config.get("add_bos_token")
        return said if isinstance(said, bool) else first is not None and first in ("", bos)

    def _resolve(self, value: Override, ids: Mapping[str, int], what: str) -> frozenset[int]:
        entries = [value] if isinstance(value, (int, str)) else list(value or ())
        out = {ids.get(v) if isinstance(v, str) else v for v in entries}
        limit = max(ids.values(), default=-1)
        if not out or not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= limit for v in out):
            raise PackageError(f"{self.tokenizer}: {what} is {value!r}, which names no token of this tokenizer")
        return frozenset(v for v in out if v is not None)

    def templates(self) -> dict[str, str]:
        """Chat template sources by name; "default" is the usual one. Empty if the model has none."""
        directory = self.tokenizer.parent
        found = _named(
            read_json(directory / "chat_template.json", {}).get("chat_template"), directory / "chat_template.json"
        )
        found |= _named(self.config.get("chat_template"), directory / "tokenizer_config.json")
        for path in sorted((directory / "additional_chat_templates").glob("*.jinja")):
            found[path.stem] = _read_text(path)
        if (directory / "chat_template.jinja").is_file():
            found["default"] = _read_text(directory / "chat_template.jinja")
        return found

    def _in(self, name: str) -> Path:
        return self.tokenizer.parent / name


def _tokenizer_file(path: Path) -> Path:
    if path.is_file() and path.suffix in (".json", ".model"):
        return path
    directory = path if path.is_dir() else path.parent
    for name in ("tokenizer.json", "tokenizer.model"):
        if (directory / name).is_file():
            return directory / name
    if not path.exists():
        raise PackageError(
            f"{path}: there is no such tokenizer file or directory; check the path in the package's config.json"
        )
    raise PackageError(
        f"{path}: found neither tokenizer.json nor tokenizer.model; put the tokenizer files of the original model there"
        " (vocab.json with merges.txt is not enough; the vendor's tokenizer in one .txt file is opened by its own name)"
    )


def _read_text(path: Path) -> str:
    check_not_pointer(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PackageError(f"{path}: cannot be read as text ({error})") from error


def _named(value: Any, path: Path) -> dict[str, str]:
    """A `chat_template` value (a string, a list of {name, template}, or an object) as sources by name."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    pairs = (
        value.items()
        if isinstance(value, dict)
        else [(v.get("name"), v.get("template")) for v in value if isinstance(v, dict)]
    )
    named = dict(pairs)
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in named.items()):
        raise PackageError(f"{path}: chat_template is neither a string nor a list of named templates")
    return named


def _content(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)

"""Text to token ids for tokenizer.json (Hugging Face tokenizers) and tokenizer.model (sentencepiece).

Both vocabularies encode a list of parts: plain text, in which control tokens are never recognised, and control tokens.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import sentencepiece
import tokenizers

from ..errors import PackageError, RequestError
from . import sentencepiece_file as spmodel
from .detokenizer import Pieces
from .template_guard import NONCHARACTERS, ControlToken

SPACE = "\u2581"
Added = dict[str, Any]


class Vocabulary(Protocol):
    """What `Tokenizer` needs of a tokenizer. `ids`: every token's id by its text, control tokens included."""

    control: tuple[ControlToken, ...]
    ids: dict[str, int]
    pieces: Pieces
    begins: str | None
    """The control token that it puts before a plain text by itself; "" where the file does not say, None: no token."""

    def encode(self, parts: Sequence[str | ControlToken]) -> list[int]: ...


class _SecretNames:
    """Names for control tokens that no client can write: noncharacters, drawn anew for each vocabulary."""

    def __init__(self) -> None:
        self._prefix = "".join(secrets.choice(NONCHARACTERS) for _ in range(16))

    def name(self, number: int) -> str:
        return self._prefix + "".join(NONCHARACTERS[number >> shift & 31] for shift in (20, 15, 10, 5, 0))

    def check_absent(self, text: str) -> None:
        if self._prefix in text:
            raise RequestError("the text holds a sequence of noncharacters that is reserved; remove it")


class JsonVocabulary:
    """A tokenizer.json. Its control tokens are renamed to secret names, in the added tokens and in the model.

    So the library's own rules for added tokens (stripping, normalising, single words, the space before a first word)
    work as they do elsewhere, and yet text that spells a control token is only text. `added`: more added tokens, from
    tokenizer_config.json. `spec`: the content, where the file at `path` has another format. Raises PackageError, naming
    `path`, for a file that is not a usable tokenizer.
    """

    def __init__(
        self,
        path: Path,
        added: Iterable[Added] = (),
        special_names: Iterable[str] = (),
        spec: dict[str, Any] | None = None,
    ) -> None:
        spec = self._load(path) if spec is None else spec
        self.begins = _first_of_template(spec.get("post_processor"))
        vocab = _vocab_ids(spec["model"], path)
        entries = _merge_added(spec.get("added_tokens") or [], added, frozenset(special_names), vocab)
        self._secret = _SecretNames()
        self._names = {
            entry["content"]: self._secret.name(number)
            for number, entry in enumerate(entries)
            if is_control(entry["content"], entry["special"], entry["content"] in vocab)
        }
        self._tokenizer = self._build(spec, entries, path)
        self.control = tuple(self._control_token(e, path) for e in entries if e["content"] in self._names)
        self.ids = vocab | {e["content"]: self._token_id(e) for e in entries}
        self.pieces = _json_pieces(spec.get("decoder"), self.ids, entries, self._tokenizer)

    def encode(self, parts: Sequence[str | ControlToken]) -> list[int]:
        """Ids of text and control tokens, as the reference tokenizer gives them without adding special tokens."""
        for part in parts:
            if isinstance(part, str):
                self._secret.check_absent(part)
        text = "".join(p if isinstance(p, str) else self._names[p.text] for p in parts)
        # As a batch: that is done without the GIL, so a long text holds up nobody else.
        ids: list[int] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    @staticmethod
    def _load(path: Path) -> dict[str, Any]:
        try:
            spec = json.loads(path.read_text(encoding="utf-8"))
            spec["model"]["vocab"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PackageError(
                f"{path}: not a Hugging Face tokenizer.json ({error}); copy it again from the model's page"
            ) from error
        return dict(spec)

    def _build(self, spec: dict[str, Any], entries: list[Added], path: Path) -> tokenizers.Tokenizer:
        renamed = [e | {"content": self._names.get(e["content"], e["content"])} for e in entries]
        changes: dict[str, Any] = {"added_tokens": renamed, "model": self._rename(spec["model"])}
        changes |= {"truncation": None, "padding": None, "post_processor": None}
        try:
            return tokenizers.Tokenizer.from_str(json.dumps(spec | changes))
        except Exception as error:  # the library raises bare Exception
            raise PackageError(f"{path}: the tokenizers library refuses it: {error}") from error

    def _rename(self, model: dict[str, Any]) -> dict[str, Any]:
        """The model with control tokens renamed, so that no merge or lattice can produce one from text."""
        names, vocab = self._names, model["vocab"]
        out = dict(model)
        if isinstance(vocab, list):  # Unigram: [[piece, score], ...]
            out["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
            return out
        out["vocab"] = {names.get(piece, piece): token_id for piece, token_id in vocab.items()}
        if model.get("unk_token") in names:
            out["unk_token"] = names[model["unk_token"]]
        if model.get("merges") and not names.keys().isdisjoint(vocab):
            pairs = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
            out["merges"] = [[a, b] for a, b in pairs if not (a in names or b in names or a + b in names)]
        return out

    def _token_id(self, entry: Added) -> int:
        content = str(entry["content"])
        found: int | None = self._tokenizer.token_to_id(self._names.get(content, content))
        return int(entry["id"]) if found is None else found

    def _control_token(self, entry: Added, path: Path) -> ControlToken:
        token_id = self._token_id(entry)
        if token_id != entry["id"]:
            raise PackageError(
                f"{path}: the added token {entry['content']!r} should have id {entry['id']} but would get {token_id}"
            )
        return ControlToken(
            entry["content"], token_id, entry["special"], bool(entry.get("single_word")), bool(entry.get("normalized"))
        )


class SentencePieceVocabulary:
    """A tokenizer.model. `added`: tokens that only tokenizer_config.json knows. `prefix_all`: the old Hugging Face
    behaviour of putting a space before the text after each control token, not only at the beginning.
    """

    begins: str | None = ""

    def __init__(self, path: Path, added: Iterable[Added] = (), prefix_all: bool = False) -> None:
        model = spmodel.read(path)
        spelled = {piece.text for piece in model.pieces if piece.kind in (spmodel.CONTROL, spmodel.USER_DEFINED)}
        extra = [e for e in added if e["content"] not in spelled and e["id"] >= len(model.pieces)]
        own = [
            p
            for p in model.pieces
            if p.kind in (spmodel.CONTROL, spmodel.USER_DEFINED) and is_control(p.text, False, False)
        ]
        self.control = tuple(
            [ControlToken(p.text, p.id, p.kind == spmodel.CONTROL) for p in own]
            + [
                ControlToken(e["content"], e["id"], e["special"])
                for e in extra
                if is_control(e["content"], e["special"], False)
            ]
        )
        # A user-defined symbol would be recognised in any text: make it unused, and put its id there ourselves.
        hidden = [p for p in own if p.kind == spmodel.USER_DEFINED]
        self._first = self._processor(path, model.edited(hidden))
        self._later = self._first
        if model.dummy_prefix and not prefix_all:
            self._later = self._processor(path, model.edited(hidden, dummy_prefix=False))
        self.ids = {p.text: p.id for p in model.pieces} | {e["content"]: e["id"] for e in extra}
        self.pieces = _sentencepiece_pieces(model, extra)

    @staticmethod
    def _processor(path: Path, data: bytes) -> sentencepiece.SentencePieceProcessor:
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(data)
        except RuntimeError as error:
            raise PackageError(f"{path}: the sentencepiece library refuses it: {error}") from error
        return processor

    def encode(self, parts: Sequence[str | ControlToken]) -> list[int]:
        """Ids of text and control tokens; only text at the very beginning gets the model's extra space."""
        ids: list[int] = []
        for index, part in enumerate(parts):
            if isinstance(part, ControlToken):
                ids.append(part.id)
            else:
                ids += (self._later if index else self._first).EncodeAsIds(part)
        return ids


def is_control(text: str, special: bool, in_model: bool) -> bool:
    """False for added tokens that are only a way to write ordinary text: runs of blanks, or one ordinary character."""
    if not text or (not special and not text.replace(SPACE, " ").strip()):
        return False
    return not (in_model and len(text) == 1)


def _merge_added(
    own: list[Added], more: Iterable[Added], special_names: frozenset[str], vocab: dict[str, int]
) -> list[Added]:
    """Added tokens of both files and the model's tokens that the configuration calls special, by id."""
    merged = {e["content"]: dict(e) for e in own}
    for name in special_names & vocab.keys() - merged.keys():
        merged[name] = {"id": vocab[name], "content": name, "normalized": False}
    for entry in more:
        known = merged.setdefault(entry["content"], dict(entry))
        known["special"] = bool(known.get("special")) or bool(entry.get("special"))
    defaults = {"special": False, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    out = [defaults | e for e in merged.values()]
    for entry in out:
        entry["special"] = bool(entry["special"]) or entry["content"] in special_names
    return sorted(out, key=lambda e: int(e["id"]))


def _vocab_ids(model: dict[str, Any], path: Path) -> dict[str, int]:
    vocab = model["vocab"]
    try:
        return (
            {p: i for i, (p, _) in enumerate(vocab)}
            if isinstance(vocab, list)
            else {str(p): int(i) for p, i in vocab.items()}
        )
    except (TypeError, ValueError) as error:
        raise PackageError(f"{path}: its vocabulary is malformed ({error})") from error


def byte_alphabet() -> dict[str, int]:
    """The characters by which byte-level BPE writes bytes: printable Latin-1 as itself, the rest from U+0100 on."""
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in keep]
    return {chr(b): b for b in keep} | {chr(0x100 + n): b for n, b in enumerate(rest)}


def _first_of_template(processor: dict[str, Any] | None) -> str | None:
    """The special token that a tokenizer.json's post-processor puts before a text, or None."""
    for step in (processor or {}).get("processors") or [processor or {}]:
        if step.get("type") == "TemplateProcessing" and step.get("single"):
            return str(step["single"][0]["SpecialToken"]["id"]) if "SpecialToken" in step["single"][0] else None
    return None


def _flat(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [leaf for part in decoder["decoders"] for leaf in _flat(part)]
    return [decoder]


def _json_pieces(
    decoder: dict[str, Any] | None, ids: dict[str, int], entries: list[Added], tokenizer: tokenizers.Tokenizer
) -> Pieces:
    """The table of bytes per token for the usual decoders; the decoder itself for others."""
    tokens = [""] * (max(ids.values(), default=-1) + 1)
    for text, token_id in ids.items():
        tokens[token_id] = text
    special = frozenset(ids[e["content"]] for e in entries if e["special"])
    literal = frozenset(ids[e["content"]] for e in entries)
    steps = _flat(decoder)
    kinds = [s["type"] for s in steps]
    if "ByteLevel" in kinds and set(kinds) <= {"ByteLevel", "Fuse"}:
        alphabet = byte_alphabet()
        return Pieces([t.encode() if i in literal else _byte_level(t, alphabet) for i, t in enumerate(tokens)], special)
    rule = _space_rule(steps)
    if rule is None:
        join: Callable[[list[str]], str] = tokenizer.decoder.decode if tokenizer.decoder is not None else " ".join
        return Pieces([t.encode() for t in tokens], special, join=join, tokens=tokens)
    mark, fallback, strip, strip_first = rule
    return Pieces([_spaced(t, mark, fallback) for t in tokens], special, strip, strip_first)


def _byte_level(token: str, alphabet: dict[str, int]) -> bytes:
    try:
        return bytes([alphabet[c] for c in token])
    except KeyError:
        return token.encode()


def _space_rule(steps: list[dict[str, Any]]) -> tuple[str, bool, int, bool] | None:
    """(mark of a space, byte fallback, leading spaces to strip, Metaspace's rule) or None for other decoders."""
    mark, fallback, strip, first, fused = "", False, 0, False, False
    for step in steps:
        kind = step["type"]
        if kind == "Replace" and not mark and step["content"] == " " and "String" in step["pattern"]:
            mark = step["pattern"]["String"]
        elif kind == "Metaspace" and not mark:
            mark = step["replacement"]
            first = step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space", True)
        elif kind == "ByteFallback":
            fallback = True
        elif kind == "Fuse":
            fused = True
        elif kind == "Strip" and fused and step["content"] == " " and not step["stop"]:
            strip = step["start"]
        else:
            return None
    return (mark, fallback, strip, first) if mark else None


def _spaced(token: str, mark: str, fallback: bool) -> bytes:
    if fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            pass
    return token.replace(mark, " ").encode()


def _sentencepiece_pieces(model: spmodel.Model, extra: list[Added]) -> Pieces:
    data = [_spaced(p.text, SPACE, p.kind == spmodel.BYTE) for p in model.pieces]
    special = {p.id for p in model.pieces if p.kind in (spmodel.CONTROL, spmodel.UNKNOWN)}
    data += [b""] * (max((e["id"] for e in extra), default=-1) + 1 - len(data))
    for entry in extra:
        data[entry["id"]] = entry["content"].encode()
        special |= {entry["id"]} if entry["special"] else set()
    return Pieces(data, frozenset(special), strip=int(model.dummy_prefix))

"""A vendor's text tokenizer and its family, put together as the content of a tokenizer.json: from there on it is like
any other tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import PackageError
from .bpe_merges import Pair, every_merge, own_merges
from .families import ORIGINAL, Family
from .vendor_file import AGAIN, HOLE, Kind, VendorFile
from .vocabulary import SPACE, byte_alphabet

Spec = dict[str, Any]
_LAST_BYTE_CHARACTER = 323  # byte-level vocabularies write bytes as characters up to here
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def control_tokens(file: VendorFile) -> dict[str, int]:
    """Id by text of the file's control tokens."""
    return {token_text(file, token_id): token_id for token_id in sorted(file.special) if token_id < len(file.tokens)}


def token_text(file: VendorFile, token_id: int) -> str:
    """A token as a tokenizer.json has it, unless it stands for bytes: a control token, a piece."""
    text = file.tokens[token_id].decode("utf-8", "replace")
    return text.replace(" ", SPACE) if file.kind is Kind.SENTENCEPIECE else text


def within(file: VendorFile, rows: int | None) -> VendorFile:
    """The file without control tokens that an embedding of `rows` tokens has no row for. PackageError if that is so of
    ordinary tokens."""
    if rows is None or len(file.tokens) <= rows:
        return file
    if any(token_id not in file.special for token_id in range(rows, len(file.tokens))):
        raise PackageError(
            f"{file.path}: has {len(file.tokens)} tokens, but the model's embedding has {rows} rows: it is another"
            f" model's; {ORIGINAL}"
        )
    return replace(file, tokens=file.tokens[:rows], scores=file.scores[:rows])


def bert_spec(file: VendorFile) -> Spec:
    """The tokenizer.json of a word-piece vocabulary, which needs no family."""
    vocab = _vocab(file, map(_word_piece, file.tokens))
    cased = any(re.search("[A-Z]", token) for token in vocab if not re.fullmatch(r"\[.*\]", token))
    normalizer: Spec = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
    }
    model: Spec = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": vocab}
    return {
        "version": "1.0",
        "added_tokens": _added(file, lambda token: True),
        "normalizer": normalizer | {"lowercase": not cased},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": model | {"max_input_chars_per_word": 100},
    }


def family_spec(file: VendorFile, family: Family) -> Spec:
    """The tokenizer.json of a byte-pair vocabulary of this family. PackageError if the file cannot be one's."""
    vocab, merges = (_piece_model if family.pieces else _byte_model)(file, family)
    model: Spec = {"type": "BPE", "dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    model |= {"unk_token": HOLE if family.pieces else None, "fuse_unk": family.pieces, "byte_fallback": family.pieces}
    model |= {"ignore_merges": family.ignore_merges, "vocab": vocab, "merges": merges}
    return {
        "version": "1.0",
        "added_tokens": _added(file, family.is_special),
        "normalizer": _normalizer(family),
        "pre_tokenizer": None if family.pieces else _splitter(family),
        "decoder": _piece_decoder(family) if family.pieces else _BYTE_LEVEL,
        "model": model,
    }


def _normalizer(family: Family) -> Spec | None:
    if not family.pieces:
        return {"type": "NFC"} if family.nfc else None
    lead = [{"type": "Prepend", "prepend": SPACE}] if family.prefix else []
    space = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    return {"type": "Sequence", "normalizers": [*lead, space]}


def _splitter(family: Family) -> Spec:
    steps: list[Spec] = []
    for rule in family.splits:
        if rule == "digits":
            steps.append({"type": "Digits", "individual_digits": True})
        elif rule == "gpt2":
            return {"type": "Sequence", "pretokenizers": [*steps, _BYTE_LEVEL | {"use_regex": True}]}
        else:
            steps.append({"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False})
    return {"type": "Sequence", "pretokenizers": [*steps, _BYTE_LEVEL]}


def _piece_decoder(family: Family) -> Spec:
    space = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if family.prefix else []
    return {"type": "Sequence", "decoders": [space, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]}


def _added(file: VendorFile, is_special: Callable[[str], bool]) -> list[Spec]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    control = control_tokens(file).items()
    return [flags | {"id": token_id, "content": token, "special": is_special(token)} for token, token_id in control]


def _vocab(file: VendorFile, tokens: Iterable[str]) -> dict[str, int]:
    """Id by token. Of several <unk>, which the converter writes for ids without a token, the control token counts."""
    vocab: dict[str, int] = {}
    for token_id, token in enumerate(tokens):
        if token in vocab and token != HOLE:
            raise PackageError(f"{file.path}: {token!r} has two ids, {vocab[token]} and {token_id}; {AGAIN}")
        if token not in vocab or token_id in file.special:
            vocab[token] = token_id
    return vocab


def _byte_model(file: VendorFile, family: Family) -> tuple[dict[str, int], list[Pair]]:
    alphabet = byte_alphabet()
    if file.kind is Kind.TIKTOKEN:
        characters = {byte: char for char, byte in alphabet.items()}
        spelled = ["".join([characters[byte] for byte in token]) for token in file.tokens]
        for token, token_id in control_tokens(file).items():
            spelled[token_id] = token
    else:
        spelled = [token_text(file, token_id) for token_id in range(len(file.tokens))]
    vocab = _vocab(file, spelled)
    ordinary = {token: token_id for token, token_id in vocab.items() if token_id not in file.special and token != HOLE}
    odd = next((token for token in ordinary if not alphabet.keys() >= set(token)), None)
    if file.kind not in (Kind.TIKTOKEN, Kind.HUGGINGFACE) or odd is not None:
        raise _mismatch(file, family, "of bytes")
    if file.kind is Kind.HUGGINGFACE:
        return vocab, _possible(file.merges, vocab)
    return vocab, every_merge(ordinary) if family.every_split else own_merges(ordinary)


def _piece_model(file: VendorFile, family: Family) -> tuple[dict[str, int], list[Pair]]:
    spelled = [token_text(file, token_id) for token_id in range(len(file.tokens))]
    for token_id in _repeated(spelled):  # MiniCPM has a piece for U+2581, then one for the space, written alike
        spelled[token_id] = spelled[token_id].replace(SPACE, " ")
    vocab = _vocab(file, spelled)
    if file.kind not in (Kind.SENTENCEPIECE, Kind.HUGGINGFACE) or HOLE not in vocab or "<0x0A>" not in vocab:
        raise _mismatch(file, family, "of pieces of text, with <unk> and <0x0A> among them")
    if file.kind is Kind.HUGGINGFACE:
        return vocab, _possible(file.merges, vocab)
    if any(score != int(score) for score in file.scores):
        raise PackageError(f"{file.path}: its scores are those of a unigram model, which is not supported; {ORIGINAL}")
    return vocab, every_merge(vocab, file.scores)


def _repeated(tokens: list[str]) -> list[int]:
    """Places of tokens that stand further in front, too."""
    first: dict[str, int] = {}
    return [place for place, token in enumerate(tokens) if first.setdefault(token, place) != place]


def _mismatch(file: VendorFile, family: Family, wanted: str) -> PackageError:
    return PackageError(
        f"{file.path}: of kind {file.kind} ({file.kind.name.lower()}); a tokenizer of {family.name} is made {wanted},"
        f" so this is another model's; {ORIGINAL}"
    )


def _possible(merges: Iterable[Pair], vocab: Mapping[str, int]) -> list[Pair]:
    return [pair for pair in merges if pair[0] in vocab and pair[1] in vocab and pair[0] + pair[1] in vocab]


def _word_piece(token: bytes) -> str:
    """Undoes what the converter does to words, too, as if they were byte-level: a byte for a character, UTF-8 only
    where a character is beyond those that byte-level vocabularies use for bytes."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        text = ""
    if any(ord(char) > _LAST_BYTE_CHARACTER for char in text):
        return text
    beyond = {byte: char for char, byte in byte_alphabet().items() if ord(char) > 0xFF}
    return "".join([beyond.get(byte, chr(byte)) for byte in token])

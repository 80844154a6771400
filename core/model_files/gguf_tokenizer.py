"""The tokenizer of a GGUF file as the files that a Hugging Face checkpoint has.

Byte-level BPE ("gpt2") becomes tokenizer.json; sentencepiece's BPE ("llama") becomes tokenizer.model."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..errors import PackageError

UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5  # kinds of tokens
DIGITS = r"\p{N}"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2's
MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Splits(NamedTuple):
    """What comes before the merges: expressions whose matches, one after the other, are split off; NFC; whether whole
    words that are tokens need no merges; whether a text begins with the begin token unless the file says."""

    expressions: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool = False
    begins: bool = False


GPT2, SINGLE_DIGITS = Splits((WORDS,)), Splits((DIGITS, WORDS))
QWEN = Splits((MODERN.replace("DIGITS", r"\p{N}"),), nfc=True)
LLAMA3 = Splits((MODERN.replace("DIGITS", r"\p{N}{1,3}"),), ignore_merges=True, begins=True)
SPLITS = {  # by the file's tokenizer.ggml.pre
    "default": Splits((r"[\p{P}\$\+<=>\^~\|]+", WORDS, r"\p{N}+", "[0-9][0-9][0-9]")),
    **dict.fromkeys(("gpt-2", "olmo", "exaone4"), GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "exaone"), SINGLE_DIGITS),
    "qwen2": QWEN,
    "deepseek-r1-qwen": QWEN._replace(nfc=False),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"), LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), LLAMA3._replace(ignore_merges=False, begins=False)),
    "tekken": Splits((CASED,), ignore_merges=True, begins=True),
}


def tokenizer_files(metadata: Mapping[str, Any], where: str) -> dict[str, bytes]:
    """Content by file name; `where` names the GGUF file in errors. PackageError: a tokenizer of another kind, or an
    unsound one."""
    kind = metadata.get("tokenizer.ggml.model")
    tokens, kinds = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if kind not in ("gpt2", "llama"):
        raise PackageError(f"{where} has a tokenizer of kind {kind!r}, which is not supported (gpt2 and llama are)")
    if not tokens or (kinds is not None and len(kinds) != len(tokens)):
        raise PackageError(f"{where} has no usable list of tokens: download it again")
    kinds = kinds or [1] * len(tokens)
    if kind == "llama":
        files, begins = {"tokenizer.model": _sentencepiece(metadata, tokens, kinds, where)}, True
    else:
        splits = _splits(metadata, where)
        files, begins = {"tokenizer.json": _byte_level(metadata, tokens, kinds, splits, where)}, splits.begins
    config = _config(metadata, tokens, begins)
    if kind == "llama":
        config["legacy"] = True  # a space after every control token, as the programs do that GGUF is made for
    return files | {"tokenizer_config.json": json.dumps(config, indent=1, ensure_ascii=False).encode()}


def _splits(metadata: Mapping[str, Any], where: str) -> Splits:
    name = metadata.get("tokenizer.ggml.pre")
    if name is None:
        raise PackageError(
            f"{where} does not say how text is split into words (tokenizer.ggml.pre): it was made by an old program,"
            " take a newer file of the model"
        )
    if name not in SPLITS:
        raise PackageError(
            f"{where} splits text into words as {name!r} (tokenizer.ggml.pre), which is not supported: convert the"
            f" original checkpoint, or a file with one of {', '.join(SPLITS)}"
        )
    return SPLITS[name]


def _byte_level(
    metadata: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int], splits: Splits, where: str
) -> bytes:
    """tokenizer.json. Unused tokens only fill the embedding: they are left out, as in the original."""
    vocabulary = {token: index for index, token in enumerate(tokens) if kinds[index] != UNUSED}
    merges = [tuple(merge.split(" ", 1)) for merge in metadata.get("tokenizer.ggml.merges", ())]
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=splits.ignore_merges))
    except Exception as error:  # the library raises bare Exception
        raise PackageError(f"{where} has an unsound tokenizer ({error}): download it again") from None
    if splits.nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in splits.expressions]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [
        AddedToken(tokens[index], normalized=False, special=kinds[index] == CONTROL)
        for index in range(len(tokens))
        if kinds[index] in (CONTROL, USER_DEFINED)
    ]
    tokenizer.add_special_tokens([token for token in added if token.special])
    tokenizer.add_tokens([token for token in added if not token.special])
    return str(tokenizer.to_str(pretty=True)).encode()


def _config(metadata: Mapping[str, Any], tokens: Sequence[str], begins: bool) -> dict[str, Any]:
    """tokenizer_config.json's values."""
    config: dict[str, Any] = {"add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", begins))}
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if isinstance(index, int) and 0 <= index < len(tokens):
            config[f"{ours}_token"] = tokens[index]
    prefix = "tokenizer.chat_template"
    named = {key.removeprefix(f"{prefix}."): text for key, text in metadata.items() if key.startswith(f"{prefix}.")}
    if prefix in metadata:
        named["default"] = metadata[prefix]
    if named:
        config["chat_template"] = [{"name": name, "template": text} for name, text in named.items()]
    if list(named) == ["default"]:
        config["chat_template"] = named["default"]
    return config


def _sentencepiece(metadata: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int], where: str) -> bytes:
    """tokenizer.model (sentencepiece's ModelProto): pieces with scores and kinds, BPE, no normalisation but spaces."""
    scores = metadata.get("tokenizer.ggml.scores") or ()
    if len(scores) != len(tokens):
        raise PackageError(f"{where} has {len(tokens)} tokens, but {len(scores)} scores: download it again")
    out = bytearray()
    for token, score, kind in zip(tokens, scores, kinds, strict=True):
        text = token.replace(" ", "\u2581").encode()
        out += _bytes(1, _bytes(1, text) + b"\x15" + struct.pack("<f", score) + _number(3, kind))
    unknown = next((index for index, kind in enumerate(kinds) if kind == UNKNOWN), 0)
    trainer = _number(3, 2) + _number(4, len(tokens)) + _number(35, 1) + _number(40, unknown)
    prefix, trim = (
        bool(metadata.get(f"tokenizer.ggml.{name}", default))
        for name, default in (("add_space_prefix", True), ("remove_extra_whitespaces", False))
    )
    normalizer = _bytes(1, b"identity") + _number(3, prefix) + _number(4, trim) + _number(5, 1)
    return bytes(out) + _bytes(2, trainer) + _bytes(3, normalizer)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    """A protocol buffer's field that holds a number."""
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value

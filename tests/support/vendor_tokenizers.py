"""Text tokenizers as the vendor's converter writes them, made from tokenizer.json and tokenizer.model."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

UNKNOWN, CONTROL, UNUSED, BYTE = 2, 3, 5, 6


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _write(path: Path, kind: int, lists: Sequence[Iterable[int]], lines: Iterable[str]) -> Path:
    """`lists`: special, stop and prefix ids."""
    values = [list(ids) for ids in lists]
    header = [f"430 {kind}", " ".join(str(len(ids)) for ids in values)]
    header.append("".join(f"{id} " for ids in values for id in ids))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in [*header, *lines]).encode())
    return path


def all_tokens(spec: Mapping[str, Any]) -> list[str]:
    """Tokens of a tokenizer.json by id, added ones too; <unk> for an id that none has."""
    vocab = spec["model"]["vocab"]
    ids = dict(vocab) | {entry["content"]: entry["id"] for entry in spec["added_tokens"]}
    tokens = ["<unk>"] * (max(ids.values()) + 1)
    for token, id in ids.items():
        tokens[id] = token
    return tokens


def added_ids(spec: Mapping[str, Any]) -> list[int]:
    return [entry["id"] for entry in spec["added_tokens"]]


def huggingface(
    path: Path, spec: Mapping[str, Any], stops: Iterable[int], *, coded: bool = False, version: bool = True
) -> Path:
    """Kind 3. `coded`: each token as b64:, as newer converters write where there is no merges.txt; `version`:
    merges.txt has its usual first line."""
    tokens = all_tokens(spec)
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in spec["model"]["merges"]]
    if coded:
        lines = [f"b64:{_b64(t.encode())}" for t in tokens]
        lines += [f"b64:{_b64(left.encode())} b64:{_b64(right.encode())}" for left, right in merges]
        count = len(merges)
    else:
        lines = [*tokens, *(["#version: 0.2"] if version else []), *(f"{left} {right}" for left, right in merges)]
        count = len(merges) + version
    return _write(path, 3, (added_ids(spec), stops, ()), [f"{len(tokens)} {count}", *lines])


def single_bytes(token: str) -> bytes:
    """A token as bytes: one a character as in byte-level vocabularies, or UTF-8 where a character is beyond those."""
    out = bytearray()
    for char in token:
        code = ord(char)
        if 256 <= code <= 288:
            code -= 256
        elif 289 <= code <= 322:
            code -= 162
        elif code == 323:
            code = 173
        if code > 255:
            return token.encode()
        out.append(code)
    return bytes(out)


def tiktoken(path: Path, spec: Mapping[str, Any], stops: Iterable[int], kind: int = 1) -> Path:
    """Kind 1 (or 2, bert, which is written alike): what the converter makes of a tokenizer without merges.txt."""
    tokens = all_tokens(spec)
    return _write(
        path, kind, (added_ids(spec), stops, ()), [str(len(tokens)), *(_b64(single_bytes(t)) for t in tokens)]
    )


def sentencepieces(
    path: Path,
    pieces: Sequence[tuple[str, float, int]],
    special: Iterable[int],
    stops: Iterable[int],
    prefix: Iterable[int],
    added: Sequence[str] = (),
    miscounted: bool = False,
) -> Path:
    """Kind 0. `pieces`: text, score and kind; `added`: tokens after them; `miscounted`: one more is announced, as for
    Gemma 3."""
    rows = [f"{_b64(text.replace(chr(0x2581), ' ').encode())} {score} {kind}" for text, score, kind in pieces]
    rows += [f"{_b64(text.encode())} 0 1" for text in added]
    return _write(path, 0, (special, stops, prefix), [str(len(rows) + miscounted), *rows])


def model_pieces(path: Path) -> list[tuple[str, float, int]]:
    """The pieces of a tokenizer.model, with the kinds that the converter tells apart: it takes user-defined ones for
    normal ones."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = []
    for id in range(model.GetPieceSize()):
        kind = UNKNOWN if model.IsUnknown(id) else CONTROL if model.IsControl(id) else 1
        kind = UNUSED if model.IsUnused(id) else BYTE if model.IsByte(id) else kind
        pieces.append((model.IdToPiece(id), model.GetScore(id), kind))
    return pieces

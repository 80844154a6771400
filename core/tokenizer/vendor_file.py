"""The vendor's tokenizer in one text file, as far as the file goes: tokens by id, merges, control tokens.

The format is that of the MNN project. Line 1: `430 KIND`. Line 2: how many special, stop and prefix ids there are; line
3: those ids. Then, by kind:
  0 sentencepiece  a count; per token: base64 of the piece (spaces for its U+2581), its score, its kind of piece
  1 tiktoken       a count; per token: base64 of its bytes
  2 bert           as 1
  3 huggingface    counts of tokens and merges; tokens as they are, then merges ("left right"), or each as b64:BASE64
The place of a token is its id. The converter writes <unk> where an id has no token."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from ..errors import PackageError
from ..files import check_not_pointer

MAGIC = 430
HOLE = "<unk>"
AGAIN = "download the model again"
_PREFIX = b"b64:"


class Kind(IntEnum):
    """The number in the file's first line."""

    SENTENCEPIECE = 0
    TIKTOKEN = 1
    BERT = 2
    HUGGINGFACE = 3


@dataclass(frozen=True, slots=True)
class VendorFile:
    """`tokens`: UTF-8 of pieces and tokens, or the bytes that tiktoken's and bert's stand for; index = id. `scores` and
    `merges` are empty where the kind has none. `special`: ids of all control tokens; `stops`: of those that end an
    answer; `prefix`: those that begin a text."""

    path: Path
    kind: Kind
    special: frozenset[int]
    stops: tuple[int, ...]
    prefix: tuple[int, ...]
    tokens: list[bytes]
    scores: list[float]
    merges: list[tuple[str, str]]


def read_vendor_file(path: Path) -> VendorFile:
    """Raises PackageError, naming the line, for anything else than a whole file of the format."""
    check_not_pointer(path)
    lines = path.read_bytes().split(b"\n")
    try:
        kind = _kind(lines[0])
        special, stops, prefix = _header(lines)
        read = {Kind.SENTENCEPIECE: _pieces, Kind.HUGGINGFACE: _merged}.get(kind, _plain)
        tokens, scores, merges = read(lines)
    except _Damaged as error:
        raise PackageError(f"{path}: {error}; {AGAIN}") from error
    highest = max(special | {*stops, *prefix}, default=-1)
    if highest >= len(tokens) + (kind is Kind.SENTENCEPIECE):  # Gemma 3's names one token more than it has
        raise PackageError(f"{path}: line 3 has the id {highest}, but there are {len(tokens)} tokens; {AGAIN}")
    return VendorFile(path, kind, special, stops, prefix, tokens, scores, merges)


class _Damaged(Exception):
    """What is wrong with the file, as the end of a sentence that names it."""


def _kind(line: bytes) -> Kind:
    fields = line.split()
    if len(fields) != 2 or fields[0] != str(MAGIC).encode():
        raise _Damaged(f"not a tokenizer in the vendor's text format (its first line is not `{MAGIC} KIND`)")
    try:
        return Kind(int(fields[1]))
    except ValueError:
        raise _Damaged(f"its kind is {fields[1]!r}; known are 0 to 3") from None


def _numbers(lines: Sequence[bytes], index: int, count: int | None) -> list[int]:
    """The integers in a line; `count`: how many there must be."""
    try:
        values = [int(field) for field in lines[index].split()]
    except (IndexError, ValueError):
        raise _Damaged(f"line {index + 1} is not a list of numbers") from None
    if any(value < 0 for value in values) or (count is not None and len(values) != count):
        raise _Damaged(f"line {index + 1} should be {count} numbers, none below 0, and has {len(values)}")
    return values


def _header(lines: Sequence[bytes]) -> tuple[frozenset[int], tuple[int, ...], tuple[int, ...]]:
    num_special, num_stop, num_prefix = _numbers(lines, 1, 3)
    ids = _numbers(lines, 2, num_special + num_stop + num_prefix)
    stop_end = num_special + num_stop
    return frozenset(ids[:num_special]), tuple(ids[num_special:stop_end]), tuple(ids[stop_end:])


def _entries(lines: Sequence[bytes], start: int, count: int, what: str) -> Sequence[bytes]:
    entries = lines[start : start + count]
    if len(entries) == count and start + count == len(lines) and not entries[-1]:  # the end of the file, not a token
        entries = entries[:-1]
    if len(entries) < count:
        raise _Damaged(f"it was cut short: line {start} announces {count} {what}, {len(entries)} are there")
    return entries


def _check_end(lines: Sequence[bytes], start: int) -> None:
    if any(line.strip() for line in lines[start:]):
        raise _Damaged(f"there is more after line {start}, where it should end")


def _decoded(field: bytes, line: int) -> bytes:
    try:
        return base64.b64decode(field, validate=True)
    except binascii.Error:
        raise _Damaged(f"line {line} is not base64: {field[:40]!r}") from None


_Content = tuple[list[bytes], list[float], list[tuple[str, str]]]


def _plain(lines: Sequence[bytes]) -> _Content:
    (count,) = _numbers(lines, 3, 1)
    entries = _entries(lines, 4, count, "tokens")
    _check_end(lines, 4 + count)
    return [_decoded(entry.strip(), 5 + i) for i, entry in enumerate(entries)], [], []


def _pieces(lines: Sequence[bytes]) -> _Content:
    (count,) = _numbers(lines, 3, 1)
    if lines[-1] == b"" and len(lines) - 1 == 4 + count - 1:
        count -= 1  # the converter counts one token more than it writes for Gemma 3
    tokens, scores = [], []
    for i, entry in enumerate(_entries(lines, 4, count, "pieces")):
        fields = entry.split()
        if len(fields) == 2:  # an empty piece
            fields.insert(0, b"")
        try:
            scores.append(float(fields[1]))
            int(fields[2])
        except (IndexError, ValueError):
            raise _Damaged(f"line {5 + i} should be base64, a score and a kind: {entry[:60]!r}") from None
        tokens.append(_decoded(fields[0], 5 + i))
    _check_end(lines, 4 + count)
    return tokens, scores, []


def _merged(lines: Sequence[bytes]) -> _Content:
    num_tokens, num_merges = _numbers(lines, 3, 2)
    entries = _entries(lines, 4, num_tokens, "tokens")
    tokens = [_maybe_coded(entry.rstrip(b"\r"), 5 + i) for i, entry in enumerate(entries)]
    start = 4 + num_tokens
    merges = []
    for i, entry in enumerate(lines[start : start + num_merges]):
        entry = entry.rstrip(b"\r")
        if not entry or (i == 0 and entry.startswith(b"#version")):
            continue
        parts = entry.split(b" ")
        if len(parts) != 2 or not all(parts):
            raise _Damaged(f"line {start + 1 + i} is not a merge of two tokens: {entry[:60]!r}")
        left, right = (_maybe_coded(part, start + 1 + i).decode() for part in parts)
        merges.append((left, right))
    if len(lines) < start + num_merges:
        raise _Damaged(f"it was cut short: line 4 announces {num_merges} merges, {len(merges)} are there")
    _check_end(lines, start + num_merges)
    return tokens, [], merges


def _maybe_coded(entry: bytes, line: int) -> bytes:
    return _decoded(entry[len(_PREFIX) :], line) if entry.startswith(_PREFIX) else entry

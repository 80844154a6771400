"""A sentencepiece model file (a protocol buffer), read and edited as far as axpress needs, without a protobuf library.

ModelProto: field 1 = pieces {1 text, 2 score, 3 type}, field 3 = normalizer {3 add_dummy_prefix}; see
sentencepiece_model.proto."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import PackageError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    id: int
    kind: int


@dataclass(frozen=True, slots=True)
class Model:
    """`fields`: the top-level fields as (number, wire type, payload), in file order."""

    fields: tuple[tuple[int, int, bytes], ...]
    pieces: tuple[Piece, ...]
    dummy_prefix: bool

    def edited(self, unused: Iterable[Piece] = (), dummy_prefix: bool | None = None) -> bytes:
        """The file with some pieces made unused (never produced from text), and the dummy prefix set."""
        drop = {piece.id for piece in unused}
        out, index = bytearray(), 0
        for number, wire, payload in self.fields:
            if number == 1:
                payload += _field(3, _VARINT, _varint(UNUSED)) if index in drop else b""  # the last value counts
                index += 1
            elif number == 3 and dummy_prefix is not None:
                payload += _field(3, _VARINT, _varint(int(dummy_prefix)))
            out += _field(number, wire, payload)
        return bytes(out)


def read(path: Path) -> Model:
    """Raises PackageError for a file that is not a sentencepiece model."""
    try:
        fields = tuple(_fields(path.read_bytes()))
        texts = [payload for number, wire, payload in fields if number == 1 and wire == _BYTES]
        pieces = tuple(_piece(payload, index) for index, payload in enumerate(texts))
        normalizer = next((payload for number, _, payload in fields if number == 3), b"")
        prefix = [payload for number, _, payload in _fields(normalizer) if number == 3]
    except (OSError, ValueError, IndexError) as error:
        raise PackageError(
            f"{path}: not a sentencepiece model ({error}); copy it again from the model's page"
        ) from error
    if not pieces:
        raise PackageError(f"{path}: a sentencepiece model without pieces; copy it again from the model's page")
    return Model(fields, pieces, not prefix or prefix[-1] != b"\0")


def _piece(payload: bytes, index: int) -> Piece:
    text, kind = "", NORMAL
    for number, _, value in _fields(payload):
        if number == 1:
            text = value.decode()
        elif number == 3:
            kind = value[0]
    return Piece(text, index, kind)


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        start = at
        if wire == _VARINT:
            _, at = _read_varint(data, at)
        elif wire == _BYTES:
            size, start = _read_varint(data, at)
            at = start + size
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at > len(data) or not number:
            raise ValueError(f"cut off or damaged at byte {start}")
        yield number, wire, data[start:at]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError(f"a number of more than 10 bytes at byte {at}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, wire: int, payload: bytes) -> bytes:
    size = _varint(len(payload)) if wire == _BYTES else b""
    return _varint(number << 3 | wire) + size + payload

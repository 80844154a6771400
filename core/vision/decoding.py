"""From the bytes of a picture file, which may be anything, to RGB pixels: within limits that are checked before
anything is decoded, turned as its EXIF data say, on white where it is transparent. Of an animation the first frame
counts."""

from __future__ import annotations

import io
import re
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RequestError

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
NAMED = "PNG, JPEG, WebP, GIF (its first frame) or BMP"
PILLOW = "pictures need Pillow, which is not there: pip install 'axpress[vision]', then start the server again"
MAX_SCANS = 64
"""Of a progressive JPEG; each one costs as much as decoding the picture once, whatever it is in bytes. Usual are 10."""
_ORIENTATION = 0x0112
_OTHERS = (
    (b"%PDF", "a PDF"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"\0\0\1\0", "an icon"),
    (b"8BPS", "a Photoshop file"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
)
_BRANDS = {b"avif": "an AVIF", b"avis": "an AVIF", b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIC"}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may be at most: bytes of its file, and pixels once decoded (3 or 4 bytes each)."""

    max_bytes: int = 10 << 20
    max_pixels: int = 25_000_000


def pillow() -> ModuleType:
    """PIL.Image. RequestError with the command that installs it, where it is not there."""
    try:
        from PIL import Image
    except ImportError:
        raise RequestError(PILLOW, None, "unsupported") from None
    return Image


def decode_image(data: bytes, limits: ImageLimits, field: str) -> Image:
    """The picture in mode RGB. Raises RequestError, naming `field`, for everything that is no picture of a kind that is
    read, is damaged, or is beyond the limits. On one thread at a time: Pillow's warnings are left out meanwhile."""
    if not data:
        raise _wrong(field, "the picture is empty: it has no bytes")
    if len(data) > limits.max_bytes:
        raise _too_many(field, f"{len(data)} bytes", f"{limits.max_bytes} (axpress serve --max-image-bytes)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a client's broken EXIF data are no news for the log
        image = _opened(data, limits, field)
        try:
            image.load()
        except Exception as error:  # a decoder met what it does not know
            raise _wrong(field, f"the {image.format} is damaged or cut off ({_reason(error)})") from None
        return _rgb(_upright(image))


def _opened(data: bytes, limits: ImageLimits, field: str) -> Image:
    """The file's header is read and checked, no more."""
    module = pillow()
    check_size(_webp_size(data), limits, field)  # Pillow would take memory for it already
    if data[:2] == b"\xff\xd8" and data.count(b"\xff\xda") > MAX_SCANS:
        raise _wrong(field, f"the JPEG comes in more than {MAX_SCANS} scans, which take long to decode")
    try:
        image: Image = module.open(io.BytesIO(data), formats=FORMATS)
    except module.DecompressionBombError as error:
        have = next(iter(re.findall(r"\d+", str(error))), "too many") + " pixels"
        raise _too_many(field, have, f"{limits.max_pixels} (axpress serve --max-image-pixels)") from None
    except Exception as error:
        raise _wrong(field, _what_else(data, error)) from None
    check_size(image.size, limits, field)
    return image


def check_size(size: tuple[int, int] | None, limits: ImageLimits, field: str) -> None:
    """Raises RequestError for too many pixels; None: not known yet."""
    if size is not None and size[0] * size[1] > limits.max_pixels:
        have = f"{size[0]} x {size[1]} pixels"
        raise _too_many(field, have, f"{limits.max_pixels} pixels (axpress serve --max-image-pixels)")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP file, as its first chunk says; None: it is none."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", body[6:10])
    return width & 0x3FFF, height & 0x3FFF


def _upright(image: Image) -> Image:
    """Turned and mirrored as its EXIF data say; unreadable ones say nothing."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:
        return image
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image) -> Image:
    """In mode RGB, 8 bits a channel: of 16 bits the upper ones, what is transparent on white."""
    module = pillow()
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = module.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white: Image = module.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _what_else(data: bytes, error: Exception) -> str:
    """Why no picture could be opened, by what the file is."""
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<svg", b"<?xml", b"<!doctype svg")) or b"<svg" in head:
        return f"SVG is not read here, since it is no picture until it is drawn: send {NAMED}"
    if head.startswith((b"<!doctype", b"<html")):
        return f"this is a web page, no picture: send {NAMED}"
    known = next((name for mark, name in _OTHERS if data.startswith(mark)), None)
    known = known or (_BRANDS.get(data[8:12]) if data[4:8] == b"ftyp" else None)
    if known is not None:
        return f"{known} is not read here: send {NAMED}"
    damaged = {b"\x89PNG": "PNG", b"\xff\xd8": "JPEG", b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP"}
    name = next((name for mark, name in damaged.items() if data.startswith(mark)), None)
    if name is not None:
        return f"the {name} is damaged or cut off ({_reason(error)})"
    return f"this is no picture of a kind that is read here: send {NAMED}"


def _reason(error: Exception) -> str:
    text = str(error).split("<")[0].strip().rstrip(":")  # without addresses of our objects
    return text[:120] or type(error).__name__


def _wrong(field: str, text: str) -> RequestError:
    return RequestError(f"'{field}': {text}.", field, "invalid_image")


def _too_many(field: str, have: str, most: str) -> RequestError:
    return RequestError(
        f"'{field}': the picture has {have}; this server takes at most {most}.", field, "image_too_large"
    )

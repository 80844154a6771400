"""Hostile and odd picture files: right, or refused by name before they cost anything."""

from __future__ import annotations

import io
import resource
import struct
import sys

import numpy as np
import pytest
from pictures import SVG, file, picture, png_bomb
from PIL import Image

from axpress.core.errors import RequestError
from axpress.core.vision import ImageLimits
from axpress.core.vision.decoding import decode_image

LIMITS = ImageLimits(max_bytes=1 << 20, max_pixels=1_000_000)


def _decoded(data: bytes, limits: ImageLimits = LIMITS) -> np.ndarray:
    return np.asarray(decode_image(data, limits, "image"))


@pytest.mark.parametrize("format", ["PNG", "BMP", "WEBP"])
def test_formats_without_loss_are_read_exactly(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    np.testing.assert_array_equal(_decoded(file(picture(), format, **options)), np.asarray(picture()))


@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_are_turned_as_exif_says(turn: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = turn
    data = file(picture(24, 16), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(_decoded(data), np.asarray(upright))
    assert _decoded(data).shape == ((16, 24, 3) if turn < 5 else (24, 16, 3))


def test_broken_exif_data_turn_nothing() -> None:
    data = file(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fnonsense")
    assert _decoded(data).shape == (40, 60, 3)


def test_what_is_transparent_is_white() -> None:
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.array([0, 255], np.uint8), (40, 30))))
    pixels = _decoded(file(image))
    assert (pixels[:, 0] == 255).all()
    np.testing.assert_array_equal(pixels[:, 1], np.asarray(picture())[:, 1])
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    np.testing.assert_array_equal(_decoded(file(palette, transparency=0)), [[[255] * 3, [40, 50, 60]]])


def test_all_kinds_of_pixels_become_rgb() -> None:
    grey = np.arange(256, dtype=np.uint8)[None]
    threefold = np.repeat(grey[..., None], 3, -1)
    np.testing.assert_array_equal(_decoded(file(Image.fromarray(grey))), threefold)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(_decoded(file(deep)), threefold)
    np.testing.assert_array_equal(_decoded(file(Image.new("1", (3, 2), 1))), np.full((2, 3, 3), 255))
    ink = picture().convert("CMYK")
    expected = np.asarray(ink.convert("RGB")).astype(int)
    assert np.abs(_decoded(file(ink, "JPEG", quality=100)).astype(int) - expected).max() < 12


def test_of_an_animation_the_first_frame_counts() -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    for format in ("GIF", "PNG", "WEBP"):
        data = file(first, format, save_all=True, append_images=[second])
        np.testing.assert_allclose(_decoded(data)[0, 0], [255, 0, 0], atol=3)


def test_one_pixel_is_a_picture() -> None:
    assert _decoded(file(picture(1, 1))).shape == (1, 1, 3)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_cut_files_are_refused(format: str, part: float) -> None:
    data = file(picture(200, 200), format)
    with pytest.raises(
        RequestError, match=r"'image': the (PNG|JPEG|GIF|WebP|WEBP|BMP) is damaged or cut off|no picture"
    ):
        _decoded(data[: int(len(data) * part)])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (SVG, "SVG is not read here"),
        (b"<?xml version='1.0'?><!-- x -->" + SVG, "SVG is not read here"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"%PDF-1.7", "a PDF is not read here"),
        (b"II*\0" + bytes(64), "a TIFF is not read here"),
        (b"\0\0\0\x18ftypheic" + bytes(64), "a HEIC is not read here"),
        (b"", "has no bytes"),
        (b"hello", "no picture of a kind"),
        (b"\x89PNG\r\n\x1a\n", "PNG is damaged"),
        (bytes(2 << 20), "2097152 bytes; this server takes at most 1048576"),
    ],
)
def test_other_files_are_refused_by_name(data: bytes, told: str) -> None:
    with pytest.raises(RequestError, match=told) as refused:
        _decoded(data)
    assert refused.value.param == "image"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB there")
def test_bombs_are_refused_by_their_header_and_take_no_memory() -> None:
    bomb = png_bomb()
    canvas = b"VP8X" + struct.pack("<IBBH", 10, 0, 0, 0) + (29_999).to_bytes(3, "little") * 2
    webp = b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas
    gif = b"GIF89a" + struct.pack("<HHBBB", 30_000, 30_000, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
    bmp = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 30_000, 30_000, 1, 24, *[0] * 6)
    before = _peak()
    for data in (bomb, webp, gif, bmp):
        with pytest.raises(RequestError, match=r"30000 x 30000 pixels|900000000 pixels") as refused:
            _decoded(data, ImageLimits())
        assert refused.value.code == "image_too_large"
    assert _peak() - before < 20_000


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    data = file(picture(), "JPEG", progressive=True)
    assert _decoded(data).shape == (40, 60, 3)
    start = data.index(b"\xff\xda")
    end = data.index(b"\xff\xda", start + 2)
    with pytest.raises(RequestError, match="scans"):
        _decoded(data[:start] + data[start:end] * 100 + data[end:])


def test_the_limits_are_those_of_the_server() -> None:
    with pytest.raises(RequestError, match=r"60 x 40 pixels; this server takes at most 2399 pixels"):
        _decoded(file(picture()), ImageLimits(max_pixels=2399))
    assert _decoded(file(picture()), ImageLimits(max_pixels=2400)).shape == (40, 60, 3)


def test_without_pillow_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RequestError, match=r"pip install 'axpress\[vision\]'"):
        _decoded(file.__code__.co_filename.encode())

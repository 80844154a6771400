"""Picture files made in memory: ordinary ones and hostile ones."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def picture(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """RGB: colours that change smoothly, so that resizing methods agree but for rounding, and differ everywhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y + rng.uniform(0, 6)) for _ in range(3)]
    return Image.fromarray((np.stack(waves, -1) * 110 + 128).astype(np.uint8))


def file(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    """A file as a data: URL."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_bomb(side: int = 30_000) -> bytes:
    """A PNG of side x side black pixels, a few KB that become gigabytes."""
    packer = zlib.compressobj(9)
    row = b"\0" * (side // 8 + 1 + 1)
    rows = b"".join([packer.compress(row) for _ in range(side)]) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'

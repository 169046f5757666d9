"""Files that pretend to be pictures."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

TEXT = b"these are words, not pixels\n"


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of less than 100 bytes whose header speaks of many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def truncated_jpeg() -> bytes:
    """The first part of a picture."""
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 60).save(buffer, "JPEG")
    return buffer.getvalue()[:3000]


def damaged_avif() -> bytes:
    """A picture with a whole header and overwritten pixel data."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(buffer, "AVIF")
    data = buffer.getvalue()
    start = data.rindex(b"mdat") + 4
    return data[:start] + b"\xff" * (len(data) - start)

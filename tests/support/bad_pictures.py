"""Contents of files that are no usable pictures."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

TEXT = b"a text file with the ending of a picture\n"


def png(header: bytes, pixels: bytes) -> bytes:
    """Return a PNG file of the content of the chunks IHDR and IDAT."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    parts = chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_bomb(width: int, height: int) -> bytes:
    """Return a PNG file of less than 100 bytes whose header has this size in pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png(header, zlib.compress(b"\0"))


def truncated_jpeg() -> bytes:
    """Return the first 3000 bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 60).save(buffer, "JPEG")
    return buffer.getvalue()[:3000]


def damaged_avif() -> bytes:
    """Return an AVIF file with a valid header and overwritten pixel data."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(buffer, "AVIF")
    data = buffer.getvalue()
    start = data.rindex(b"mdat") + 4
    return data[:start] + b"\xff" * (len(data) - start)

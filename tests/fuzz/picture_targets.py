"""Targets: the decoder of pictures."""

from __future__ import annotations

import io
import struct
import zlib

from fuzz.registry import Choices, target
from PIL import Image

from xmodal.data.images import FORMATS, image_size, load_image
from xmodal.data.preprocessing import FITS, Preprocessing

MODES = ("RGB", "L", "P", "RGBA", "1", "LA", "I;16", "CMYK")


def _seeds() -> list[bytes]:
    seeds = []
    for format_ in FORMATS:
        for mode in MODES:
            picture = Image.radial_gradient("L").resize((9, 7)).convert("RGB")
            picture = picture.convert("I" if mode == "I;16" else mode)
            picture = picture.convert(mode)
            sink = io.BytesIO()
            try:
                picture.save(sink, format_)
            except (OSError, ValueError, KeyError):
                continue  # the format has no such mode, or cannot be written
            seeds += [bytes([option]) + sink.getvalue() for option in (0, 4, 7, 11)]
    return seeds


def with_checksums(png: bytes) -> bytes:
    """Return a PNG whose chunks have the right checksums, so that they are decoded."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        return png
    place, parts = 8, [png[:8]]
    while place + 12 <= len(png):
        end = place + 8 + struct.unpack(">I", png[place : place + 4])[0]
        chunk = png[place:end]
        parts += [chunk, struct.pack(">I", zlib.crc32(chunk[4:]))]
        place = end + 4
    return b"".join(parts)


@target(_seeds)
def picture(data: bytes) -> None:
    """The bytes of a picture; the first byte chooses the preparation for a network."""
    choices = Choices(data)
    option = choices.number(256)
    size, fit = (None, 8, 224)[option % 3], FITS[option // 3 % len(FITS)]
    content = with_checksums(choices.rest())
    image_size(content)
    assert load_image(content, size).mode == "RGB"
    resized = 0 if fit == "crop" else 2 * (size or 16)
    Preprocessing(size=size or 16, fit=fit, resized=resized).pixels(content)

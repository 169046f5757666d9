"""Images in requests: base64 or data URLs."""

from __future__ import annotations

import binascii

from xmodal.data.images import image_size
from xmodal.errors import DataError
from xmodal.service.input_threads import give_way

SLICE_CHARACTERS = 256 * 1024


def decode_image(text: str, max_pixels: int) -> bytes:
    """The image file in ``text``: base64, or a data URL.

    Raises DataError if it is not an image, or has more than ``max_pixels`` by its header.
    """
    start = text.find(",") + 1 or len(text) if text.startswith("data:") else 0
    try:
        data = _decode_base64(text, start)
    except (binascii.Error, ValueError):
        raise DataError(
            "the picture is not base64: send the file's bytes, base64-encoded"
        ) from None
    check_picture(data, max_pixels)
    return data


def _decode_base64(text: str, start: int) -> bytes:
    """Decode in slices from ``start``: other threads cannot run while one is decoded."""
    if text.find("=", start, -2) >= 0:
        raise ValueError
    slices = []
    for place in range(start, len(text), SLICE_CHARACTERS):
        give_way()
        slices.append(binascii.a2b_base64(text[place : place + SLICE_CHARACTERS], strict_mode=True))
    return b"".join(slices)


def check_picture(data: bytes, max_pixels: int) -> None:
    """Raise DataError unless a file is an image with at most ``max_pixels`` by its header."""
    width, height = image_size(data)
    if width * height > max_pixels:
        raise DataError(
            f"the picture has {width} x {height} pixels, expected at most "
            f"{max_pixels / 1e6:g} million"
        )

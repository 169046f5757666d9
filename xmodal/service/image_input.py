"""Images in requests: base64 or data URLs."""

from __future__ import annotations

import base64
import binascii

from xmodal.data.images import image_size
from xmodal.errors import DataError


def decode_image(text: str, max_pixels: int) -> bytes:
    """The image file in ``text``: base64, or a data URL.

    Raises DataError if it is not an image, or has more than ``max_pixels`` by its header.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(
            "the picture is not base64: send the file's bytes, base64-encoded"
        ) from None
    check_picture(data, max_pixels)
    return data


def check_picture(data: bytes, max_pixels: int) -> None:
    """Raise DataError unless a file is an image with at most ``max_pixels`` by its header."""
    width, height = image_size(data)
    if width * height > max_pixels:
        raise DataError(
            f"the picture has {width} x {height} pixels, expected at most "
            f"{max_pixels / 1e6:g} million"
        )

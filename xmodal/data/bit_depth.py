"""Conversion of pictures with more than 8 bits for each value to 8 bits.

The range of values is not written in most files: a scanner or a microscope stores 12 bits in a
picture of 16, and a TIFF of floats may end at 1, at 255 or at 65535. It is chosen by the largest
value, so that no picture becomes black because of its range.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from xmodal.errors import DataError

BITS = (8, 10, 12, 16, 24, 32)
"""Numbers of bits of integers, of which the first one that the largest value fits is used."""
FLOAT_RANGES = (1.0, 255.0, 65535.0)
"""Largest values of floats, chosen in the same way; else the values' own range is used."""

BAND_PIXELS = 4_000_000
"""Pixels that are converted at a time."""


def to_8_bits(image: Image.Image, from_16: bool = False) -> Image.Image:
    """Return a loaded image with 8 bits for each value; the modes I and F become grey.

    ``from_16``: the image was decoded from 16 bits. Then 12 bits or less of several channels
    left values of at most 15, which are scaled. Raises DataError if no value is finite.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _to_grey(image)
    if from_16 and image.mode in ("RGB", "RGBA", "LA"):
        bands = image.getbands()
        extrema = np.asarray(image.getextrema())  # (bands, 2)
        largest = max(extrema[number, 1] for number, band in enumerate(bands) if band != "A")
        if 0 < largest < 16:
            bright = [min(255, value * (17 if largest > 3 else 85)) for value in range(256)]
            same = list(range(256))
            return image.point([x for band in bands for x in (same if band == "A" else bright)])
    return image


def _to_grey(image: Image.Image) -> Image.Image:
    """Return an image of mode I, I;16 or F as one of mode L, converted in bands of rows."""
    ranges = [_finite_range(values) for _, values in _bands(image)]
    known = [one for one in ranges if one is not None]
    if not known:
        raise DataError("no finite value, expected a picture")
    low, high = min(one[0] for one in known), max(one[1] for one in known)
    result = Image.new("L", image.size)
    for top, values in _bands(image):
        grey = (
            _floats_to_8_bits(values, low, high)
            if image.mode == "F" or low < 0  # signed values
            else _integers_to_8_bits(values, int(high))
        )
        result.paste(Image.fromarray(grey), (0, top))
    return result


def _bands(image: Image.Image) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the first row of each band, and its values as (rows, width)."""
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(image.height, top + rows))
        yield top, np.asarray(image.crop(box))


def _finite_range(values: npt.NDArray[Any]) -> tuple[float, float] | None:
    """Return the least and the largest finite value, None if there is none."""
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(known.min()), float(known.max())) if known.size else None


def _integers_to_8_bits(values: npt.NDArray[np.integer], high: int) -> npt.NDArray[np.uint8]:
    bits = next(bits for bits in BITS if high < 1 << bits)
    shifted: npt.NDArray[np.uint8] = np.right_shift(values, bits - 8).astype(np.uint8)
    return shifted


def _floats_to_8_bits(
    values: npt.NDArray[np.number], low: float, high: float
) -> npt.NDArray[np.uint8]:
    if low >= 0:
        low, high = 0.0, next((end for end in FLOAT_RANGES if high <= end), high)
    elif values.dtype.kind != "f":  # signed integers are moved to start at 0
        values, high = values.astype(np.float32) - low, high - low
        low, high = 0.0, next((end for end in FLOAT_RANGES if high <= end), high)
    scaled = (np.where(np.isfinite(values), values, low) - low) * (255 / max(high - low, 1e-30))
    return np.round(scaled).clip(0, 255).astype(np.uint8)

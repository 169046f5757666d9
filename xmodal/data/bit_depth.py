"""Conversion of pictures with more than 8 bits for each value to 8 bits.

The range of values is not written in most files: a scanner or a microscope stores 12 bits in a
picture of 16, and a TIFF of floats may end at 1, at 255 or at 65535. It is chosen by the largest
value, so that no picture becomes black because of its range.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from xmodal.errors import DataError

BITS = (8, 10, 12, 16, 24, 32)
"""Numbers of bits of integers, of which the first one that the largest value fits is used."""
FLOAT_RANGES = (1.0, 255.0, 65535.0)
"""Largest values of floats, chosen in the same way; else the values' own range is used."""


def to_8_bits(image: Image.Image, from_16: bool = False) -> Image.Image:
    """Return a loaded image with 8 bits for each value; the modes I and F become grey.

    ``from_16``: the image was decoded from 16 bits. Then 12 bits or less of several channels
    left values of at most 15, which are scaled. Raises DataError if no value is finite.
    """
    if image.mode.startswith("I"):
        return Image.fromarray(_integers_to_8_bits(np.asarray(image)))
    if image.mode == "F":
        return Image.fromarray(_floats_to_8_bits(np.asarray(image)))
    if from_16 and image.mode in ("RGB", "RGBA", "LA"):
        bands = image.getbands()
        extrema = np.asarray(image.getextrema())  # (bands, 2)
        largest = max(extrema[number, 1] for number, band in enumerate(bands) if band != "A")
        if 0 < largest < 16:
            bright = [min(255, value * (17 if largest > 3 else 85)) for value in range(256)]
            same = list(range(256))
            return image.point([x for band in bands for x in (same if band == "A" else bright)])
    return image


def _integers_to_8_bits(values: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0:  # signed values
        return _floats_to_8_bits(values.astype(np.float32) - low)
    bits = next(bits for bits in BITS if high < 1 << bits)
    shifted: npt.NDArray[np.uint8] = np.right_shift(values, bits - 8).astype(np.uint8)
    return shifted


def _floats_to_8_bits(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    finite = np.isfinite(values)
    if not finite.any():
        raise DataError("no finite value, expected a picture")
    known = values[finite]
    low, high = float(known.min()), float(known.max())
    if low >= 0:
        low, high = 0.0, next((end for end in FLOAT_RANGES if high <= end), high)
    scaled = (np.where(finite, values, low) - low) * (255 / max(high - low, 1e-30))
    return np.round(scaled).clip(0, 255).astype(np.uint8)

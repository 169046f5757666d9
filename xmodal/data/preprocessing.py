"""Preparation of a picture for a network: resizing, cutting and padding to a square."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from PIL import Image

from xmodal.data.images import Pixels, Source, decoder_errors, load_image, name_of

Fit = Literal["crop", "squash", "shortest", "longest"]
Resample = Literal["bilinear", "bicubic", "lanczos", "nearest", "box", "hamming"]
Offset = Literal["floor", "round", "start"]
FITS: tuple[Fit, ...] = ("crop", "squash", "shortest", "longest")
Box = tuple[float, float, float, float]
"""Left, top, right and lower edge of a part of a picture, in pixels."""
LARGEST_SUPPORT = 3
"""Pixels on each side of a resized pixel that have a weight in it; 3 for lanczos, else fewer."""
FIRST_FIELDS = 6
"""Fields of earlier versions, which :meth:`Preprocessing.shown_fields` always has."""


@dataclass(frozen=True, repr=False)
class Preprocessing:
    """Parameters that map a picture to the square input of a network.

    ``size``: side of the square in pixels. ``fit``:

    - "shortest" resizes the picture until its shorter side has ``resized`` pixels, and cuts the
      square out of the middle; "longest" does so by the longer side, and pads the square.
    - "squash" resizes the whole picture to ``size`` and changes its aspect ratio. With ``resized``
      it resizes to that side and cuts the square out of the middle.
    - "crop" resizes the centred square whose side is ``share`` times the shorter side of the
      picture. Its result differs from "shortest" by parts of a pixel.

    ``offset``: rounding of the offset of the middle if it is not a whole number: down, or to the
    even number; "start" is the upper left corner instead of the middle. ``fill``: colour of the
    padding. ``bgr``: the network expects blue, green, red. ``by_rows``: rows are resized before
    columns, as by torchvision; Pillow begins with the smaller work, and both round between the two.
    The network divides pixels by 255, then
    computes ``(x - mean) / std`` for each channel.
    """

    size: int
    fit: Fit = "crop"
    share: float = 1.0
    resample: Resample = "bicubic"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resized: int = 0
    offset: Offset = "floor"
    fill: tuple[int, int, int] = (0, 0, 0)
    bgr: bool = False
    by_rows: bool = False

    def __repr__(self) -> str:
        """Return the fields of :meth:`shown_fields`."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self.shown_fields().items())
        return f"Preprocessing({shown})"

    def shown_fields(self) -> dict[str, Any]:
        """Return the fields by name; later ones only if they are set.

        Hashes and exported graphs of earlier versions contain the others.
        """
        return {
            one.name: getattr(self, one.name)
            for number, one in enumerate(fields(self))
            if number < FIRST_FIELDS or getattr(self, one.name) != one.default
        }

    def pixels(self, source: Source | Pixels) -> Pixels:
        """Return one picture as (size, size, 3) uint8 RGB; mean and std are not applied.

        ``source``: pixels that this method returned before are returned as they are.

        Raises DataError like :func:`~xmodal.data.images.load_image`.
        """
        if isinstance(source, np.ndarray):
            return source
        image = load_image(source, self.resized or self.size)
        with decoder_errors(name_of(source)):
            return self._prepared(image)

    def _prepared(self, image: Image.Image) -> Pixels:
        if self.fit == "crop" or not self.resized:
            return self._from_box(image)
        width, height = self._resized_sides(*image.size)
        left, top = (_offset(side, self.size, self.offset) for side in (width, height))
        return self._cut(image, (width, height), (left, top))

    def _from_box(self, image: Image.Image) -> Pixels:
        """Resize the whole picture, or its centred square, to the square."""
        width, height = image.size
        if self.fit == "squash":
            box = (0.0, 0.0, float(width), float(height))
        else:
            side = self.share * min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
        if box != (0, 0, self.size, self.size):
            method = Image.Resampling[self.resample.upper()]
            image = image.resize((self.size, self.size), method, box=box, reducing_gap=2.0)
        return np.asarray(image)

    def _resized_sides(self, width: int, height: int) -> tuple[int, int]:
        """Return the sides (width, height) of the resized picture, at least 1."""
        if self.fit == "squash":
            return self.resized, self.resized
        if self.fit == "longest":
            ratio = max(width, height) / self.resized
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        if width <= height:
            return self.resized, int(self.resized * height / width)
        return int(self.resized * width / height), self.resized

    def _cut(self, image: Image.Image, sides: tuple[int, int], offset: tuple[int, int]) -> Pixels:
        """Return the square at ``offset`` of the picture resized to ``sides``.

        Only the visible part is resized, so that the memory does not depend on the aspect ratio.
        """
        square = np.full((self.size, self.size, 3), self.fill, np.uint8)
        starts = [max(0, one) for one in offset]
        ends = [min(side, one + self.size) for side, one in zip(sides, offset, strict=True)]
        scales = [before / after for before, after in zip(image.size, sides, strict=True)]
        size = (ends[0] - starts[0], ends[1] - starts[1])
        left, top, right, bottom = (
            min(one * scale, float(limit))
            for places in (starts, ends)
            for one, scale, limit in zip(places, scales, image.size, strict=True)
        )
        part = self._resized(image, size, (left, top, right, bottom))
        corner = [start - one for start, one in zip(starts, offset, strict=True)]
        columns, rows = (slice(one, one + n) for one, n in zip(corner, size, strict=True))
        square[rows, columns] = np.asarray(part)
        return square

    def _resized(self, image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
        """Return the part ``box`` of a picture, resized to ``size``."""
        method = Image.Resampling[self.resample.upper()]
        if not self.by_rows or method == Image.Resampling.NEAREST:
            return image.resize(size, method, box=box)
        left, top, right, bottom = box
        reach = LARGEST_SUPPORT * max(1.0, (bottom - top) / size[1]) + 1
        first, last = max(0, int(top - reach)), min(image.height, math.ceil(bottom + reach))
        rows = image.crop((0, first, image.width, last))
        rows = rows.resize((size[0], rows.height), method, box=(left, 0, right, rows.height))
        return rows.resize(size, method, box=(0, top - first, size[0], bottom - first))


def _offset(side: int, size: int, rounding: Offset) -> int:
    """Return where the square of ``size`` begins in a side; less than 0 if the side is shorter."""
    if rounding == "start":
        return 0
    if side < size:
        return -((size - side) // 2)
    return round((side - size) / 2) if rounding == "round" else (side - size) // 2

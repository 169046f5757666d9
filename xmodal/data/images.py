"""Pictures from files: decoded small, upright, in RGB, or refused with a reason.

EXIF orientation is applied, JPEGs are decoded at a reduced scale where that is enough,
transparency is flattened on white, and a picture with absurdly many pixels is refused from its
header, before any memory is spent on it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from xmodal.errors import DataError

MAX_PIXELS = 80_000_000
"""Pictures with more pixels are refused (80 megapixels; a decompression bomb has more)."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What is decoded; Pillow knows many more, some of which start other programs."""

Source = str | Path | bytes | Image.Image
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the square that a network sees, and how its pixels are scaled.

    ``size``: side in pixels. ``fit``: "crop" takes the centred square that covers ``share`` of the
    shorter side, "squash" the whole picture whatever its shape. Pixels are divided by 255, then
    ``(x - mean) / std`` per channel.
    """

    size: int
    fit: Literal["crop", "squash"] = "crop"
    share: float = 1.0
    resample: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def pixels(self, source: Source) -> Pixels:
        """The square of one picture, shape (size, size, 3), uint8 RGB, mean and std not applied.

        Raises DataError for what :func:`load` refuses.
        """
        image = load(source, self.size)
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


def load(source: Source, size: int | None = None) -> Image.Image:
    """An upright RGB picture from a file, its bytes, or an open image.

    ``size`` (pixels) allows a JPEG to be decoded at a reduced scale whose sides are still at least
    twice as long; an open image is left as it is. Raises DataError if the picture is missing, too
    large or cannot be decoded.
    """
    if isinstance(source, Image.Image):
        with _refusing("picture"):
            return _upright(source, "picture")
    with _opened(source) as image:
        return _upright(image, _name(source), size)


def measure(source: Source) -> tuple[int, int]:
    """Width and height in pixels as its head says, without decoding it. Raises DataError."""
    with _opened(source) as image:
        return image.size


@contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    """The open picture; errors of Pillow in the ``with`` block become DataError."""
    if isinstance(source, Image.Image):
        yield source
        return
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with _refusing(_name(source)), Image.open(file, formats=FORMATS) as image:
        yield image


@contextmanager
def _refusing(name: object) -> Iterator[None]:
    """Raise DataError for every exception of the Pillow calls in the ``with`` block.

    Which exceptions a decoder raises for damaged bytes is not documented, and differs between
    formats and versions of Pillow (RuntimeError from AVIF, SyntaxError from PNG, struct.error from
    TIFF, MemoryError for impossible sizes). Any Exception is therefore a damaged picture. The rule
    holds for opening, decoding, EXIF and conversion to RGB, so the block must contain nothing else.
    """
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such picture") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(_too_large(name, "far too many pixels")) from None
    except UnidentifiedImageError:
        raise DataError(f"{name}: not a picture in a known format") from None
    except Exception as e:
        reason = " ".join(str(e).split())[:100] or type(e).__name__
        raise DataError(f"{name}: cannot be decoded ({reason})") from None


def _name(source: Source) -> object:
    return source if isinstance(source, str | Path) else "picture"


def _upright(image: Image.Image, name: object, size: int | None = None) -> Image.Image:
    """The picture decoded, turned as its EXIF tag says, in RGB; ``size`` as in :func:`load`."""
    if image.width * image.height > MAX_PIXELS:
        raise DataError(_too_large(name, f"{image.width} x {image.height} pixels"))
    if size is not None:
        image.draft("RGB", (2 * size, 2 * size))
    upright = ImageOps.exif_transpose(image)
    return flatten(image if upright is None else upright)


def flatten(image: Image.Image) -> Image.Image:
    """RGB from any mode: transparency on white, 16-bit grey scaled, CMYK converted."""
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _too_large(name: object, found: str) -> str:
    return f"{name}: {found}, expected at most {MAX_PIXELS // 1_000_000} million; make it smaller"

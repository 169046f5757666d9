"""Decoding of pictures to small upright RGB images; unusable pictures raise DataError.

EXIF orientation is applied, JPEGs are decoded at a reduced scale if the target size allows it, and
transparency is flattened on white. A picture with more than ``MAX_PIXELS`` pixels is refused by its
header, before memory for its pixels is allocated.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from xmodal.errors import DataError

MAX_PIXELS = 80_000_000
"""Maximum number of pixels of a picture (80 megapixels); decompression bombs have more."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""File endings of pictures in a folder (lower case)."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are decoded; Pillow has more, and runs other programs to decode some of them."""

Source = str | Path | bytes | Image.Image
Pixels = npt.NDArray[np.uint8]


def load_image(source: Source, size: int | None = None) -> Image.Image:
    """Return an upright RGB image from a path, the bytes of a file, or an open image.

    With ``size`` (pixels), a JPEG may be decoded at a reduced scale whose sides are at least twice
    ``size``. An open image is decoded at full scale and not changed. Raises DataError if the
    picture is missing, too large or damaged.
    """
    if isinstance(source, Image.Image):
        with _decoder_errors("picture"):
            return _decode(source, "picture")
    with _open(source) as image:
        return _decode(image, _name(source), size)


def image_size(source: Source) -> tuple[int, int]:
    """Return (width, height) in pixels from the header, without decoding. Raises DataError."""
    with _open(source) as image:
        return image.size


@contextmanager
def _open(source: Source) -> Iterator[Image.Image]:
    """Open a picture; exceptions of Pillow in the ``with`` block become DataError."""
    if isinstance(source, Image.Image):
        yield source
        return
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with _decoder_errors(_name(source)), Image.open(file, formats=FORMATS) as image:
        yield image


@contextmanager
def _decoder_errors(name: object) -> Iterator[None]:
    """Raise DataError for every Exception of the Pillow calls in the ``with`` block.

    Pillow does not document the exceptions of its decoders for damaged bytes. They differ between
    formats and versions: RuntimeError for AVIF, SyntaxError for PNG, struct.error for TIFF,
    MemoryError for impossible sizes. Therefore every Exception means a damaged picture. The block
    must contain only Pillow calls: opening, decoding, EXIF and conversion to RGB.
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
    """Return the path for error messages, or "picture" for a source without one."""
    return source if isinstance(source, str | Path) else "picture"


def _decode(image: Image.Image, name: object, size: int | None = None) -> Image.Image:
    """Decode to RGB and apply EXIF orientation; ``size`` as in :func:`load_image`."""
    if image.width * image.height > MAX_PIXELS:
        raise DataError(_too_large(name, f"{image.width} x {image.height} pixels"))
    if size is not None:
        image.draft("RGB", (2 * size, 2 * size))
    return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: transparency on white, 16-bit grey scaled to 8 bits."""
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

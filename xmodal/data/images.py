"""Decoding of pictures to small upright RGB images; unusable pictures raise DataError.

EXIF orientation is applied, JPEGs are decoded at a reduced scale if the target size allows it, and
transparency is flattened on white. A picture with more than ``MAX_PIXELS`` pixels is refused by its
header, before memory for its pixels is allocated; a larger JPEG is decoded at a reduced scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from xmodal.data.bit_depth import to_8_bits
from xmodal.data.bounded_file import BoundedFile, jpeg_header_is_bounded
from xmodal.data.packed import read_picture
from xmodal.data.picture_formats import FORMATS, content_name, is_heif, register_heif
from xmodal.data.remote import address
from xmodal.data.tiff_tags import tags_are_bounded
from xmodal.errors import DataError, ExtraMissing

MAX_PIXELS = 80_000_000
"""Maximum number of pixels of a picture (80 megapixels); decompression bombs have more."""
MAX_JPEG_PIXELS = 500_000_000
"""Maximum number of pixels of a JPEG that is decoded at a reduced scale."""
MAX_SCANNED_PIXELS = 2_000_000_000
"""Maximum of pixels times passes of a progressive JPEG; usual files have about 10 passes."""
MAX_SLOW_PIXELS = 250_000
"""Maximum number of pixels of the variants of PPM that Pillow decodes number by number."""
BAND_PIXELS = 4_000_000
"""Pixels that are converted at a time where transparency is flattened."""
MEMORY = 500 * 2**20
"""Bytes of memory that the decoding of a picture may need if its file is small."""
SMALL_FILE = 100
"""Pixels for each byte of a file above which it is small; photos usually have fewer than 50."""
COPYING_FORMATS = ("WEBP", "JPEG2000", "AVIF", "HEIF")
"""Formats whose decoders hold several copies of a picture, of COPIES_BYTES for each pixel."""
COPIES_BYTES = 17
SMALL_MODES = ("1", "L", "P")
"""Modes of one byte for each pixel; Pillow stores RGB in 4 bytes."""


class NamedBytes(bytes):
    """Bytes of a picture with the name that messages give it."""

    name: str = "picture"


Source = str | Path | bytes | Image.Image
Pixels = npt.NDArray[np.uint8]

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that makes a picture upright, by its EXIF orientation."""
_ORIENTATION = 0x0112


def load_image(source: Source, size: int | None = None) -> Image.Image:
    """Return an upright RGB image from a path, the bytes of a file, or an open image.

    With ``size`` (pixels), a JPEG may be decoded at a reduced scale whose sides are at least twice
    ``size``; one of more than MAX_PIXELS is always reduced. An open image is decoded at full scale
    and not changed. Raises DataError if the picture is missing, too large or damaged.
    """
    if isinstance(source, Image.Image):
        with decoder_errors("picture"):
            return _decode(source, "picture")
    with _open(source) as image:
        if isinstance(image, JpegImageFile):
            _reduce_jpeg(image, size, name_of(source))
        return _decode(image, name_of(source))


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
    data = source if isinstance(source, bytes) else read_named(source)
    with decoder_errors(name_of(source), data), _open_bytes(data) as image:
        yield image


def read_named(path: str | Path) -> NamedBytes:
    """Return the content of a picture's file. Raises DataError, and RemoteFailure."""
    try:
        content = NamedBytes(read_picture(path))
    except FileNotFoundError:
        raise DataError(f"{address(path)}: there is no such picture") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{address(path)}: cannot be read ({reason})") from None
    content.name = address(path)
    return content


def _open_bytes(data: bytes) -> Image.Image:
    """Return the opened picture. Raises DataError, or the exceptions of Pillow."""
    if data.startswith(b"\xff\xd8\xff"):
        if not jpeg_header_is_bounded(data):
            raise DataError("a JPEG with too many or too large segments before its pixels")
        image = JpegImageFile(BoundedFile(data))  # Image.open refuses pictures that can be reduced
        scans = data.count(b"\xff\xda") if "progressive" in image.info else 0
        if image.width * image.height * scans > MAX_SCANNED_PIXELS:
            raise DataError(
                f"a JPEG of {scans:,} passes over {image.width} x {image.height} pixels"
            )
        return image
    if data.startswith(b"\0\0\1\0"):
        data = _largest_icon(data)
    if not tags_are_bounded(data) or (data[4:8] == b"ftyp" and not _metadata_is_bounded(data)):
        raise DataError("its tags are larger than the file")
    formats: tuple[str, ...] = FORMATS
    if is_heif(data[:64]):
        register_heif()
        formats = ("HEIF",)
    opened = Image.open(BoundedFile(data), formats=formats)
    pixels = opened.width * opened.height
    if pixels * _bytes_of_a_pixel(opened) > MEMORY and pixels > SMALL_FILE * len(data):
        raise DataError(
            f"{opened.width} x {opened.height} pixels in a file of {len(data):,} bytes, expected "
            f"at most {SMALL_FILE} pixels for each byte in a picture of this size; make it smaller"
        )
    return opened


def _bytes_of_a_pixel(image: Image.Image) -> int:
    """Return the bytes of memory for each pixel that decoding to RGB needs, about."""
    if image.format in COPYING_FORMATS:
        return COPIES_BYTES
    if image.mode == "RGB" and "transparency" not in image.info:
        return 4
    return 5 if image.mode in SMALL_MODES else 8


def _largest_icon(data: bytes) -> bytes:
    """Return the first largest picture of an icon file if it is a PNG, else the file.

    Pillow decodes an icon when it opens the file; the size of a PNG is not that of the directory.
    """
    entries = [data[place : place + 16] for place in range(6, 6 + 16 * data[4], 16)]
    largest = max(entries, key=lambda entry: (entry[0] or 256) * (entry[1] or 256), default=b"")
    picture = data[int.from_bytes(largest[12:16], "little") :] if len(largest) == 16 else b""
    return picture if picture.startswith(b"\x89PNG") else data


def _metadata_is_bounded(data: bytes) -> bool:
    """Whether the EXIF data of AVIF and HEIF files, which is read with the header, is bounded."""
    for mark in (b"II*\0", b"MM\0*"):
        start = data.find(mark)
        while start >= 0:
            if not tags_are_bounded(data[start:]):
                return False
            start = data.find(mark, start + 1)
    return True


@contextmanager
def decoder_errors(name: object, data: bytes | None = None) -> Iterator[None]:
    """Raise DataError for every Exception of the Pillow calls in the ``with`` block.

    Pillow does not document the exceptions of its decoders for damaged bytes. They differ between
    formats and versions: RuntimeError for AVIF, SyntaxError for PNG, struct.error for TIFF,
    MemoryError for impossible sizes. Therefore every Exception means a damaged picture. The block
    must contain only Pillow calls: opening, decoding, EXIF and conversion to RGB. ``data``: the
    file, to name its content if it is no picture.
    """
    try:
        yield
    except (DataError, ExtraMissing) as error:
        text = str(error)
        raise DataError(text if text.startswith(f"{name}: ") else f"{name}: {text}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(_too_large(name, "far too many pixels")) from None
    except Exception as e:
        content = None if data is None else content_name(data[:1024])
        if content is not None:
            raise DataError(f"{name}: {content}, not a picture") from None
        if data is not None and is_heif(data[:64]):
            raise DataError(f"{name}: a HEIC picture that cannot be decoded") from None
        if isinstance(e, UnidentifiedImageError):
            raise DataError(f"{name}: not a picture in a known format") from None
        reason = " ".join(str(e).split())[:100] or type(e).__name__
        raise DataError(f"{name}: cannot be decoded ({reason})") from None


def name_of(source: Source) -> object:
    """Return the path for error messages, or "picture" for a source without one."""
    if isinstance(source, NamedBytes):
        return source.name
    return address(source) if isinstance(source, str | Path) else "picture"


def _reduce_jpeg(image: JpegImageFile, size: int | None, name: object) -> None:
    """Set the scale at which a JPEG is decoded: 1, 1/2, 1/4 or 1/8.

    Its sides are at least twice ``size``, unless MAX_PIXELS needs a smaller scale. A progressive
    JPEG is refused above MAX_PIXELS, because its coefficients are held in full size.
    """
    width, height = image.size
    pixels = width * height
    limit = MAX_PIXELS if "progressive" in image.info else MAX_JPEG_PIXELS
    if pixels > limit:
        raise DataError(_too_large(name, f"{width} x {height} pixels", limit))
    ratio = 1 if size is None else min(width, height) // (2 * size)
    wanted = next(scale for scale in (8, 4, 2, 1) if scale <= max(1, ratio))
    needed = next(scale for scale in (1, 2, 4, 8) if pixels <= MAX_PIXELS * scale**2)
    if (scale := max(wanted, needed)) > 1:
        image.draft("RGB", (max(1, width // scale), max(1, height // scale)))


def _decode(image: Image.Image, name: object) -> Image.Image:
    """Decode to RGB and apply the EXIF orientation."""
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise DataError(_too_large(name, f"{image.width} x {image.height} pixels"))
    tiles = getattr(image, "tile", None)
    if tiles and tiles[0][0] in ("ppm", "ppm_plain") and pixels > MAX_SLOW_PIXELS:
        raise DataError(
            f"{name}: {image.width} x {image.height} pixels in a slow variant of PPM, expected at "
            f"most {MAX_SLOW_PIXELS:,}; convert it to PNG"
        )
    rawmode = str(tiles[0][3]) if tiles else ""
    image.load()
    transposition = _TRANSPOSITIONS.get(_orientation(image))
    image = _to_rgb(to_8_bits(image, from_16=";16" in rawmode))
    return image if transposition is None else image.transpose(transposition)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, which is upright, for damaged or oversized EXIF data."""
    try:
        exif = image.info.get("exif")
        if exif is None and (profile := image.info.get("Raw profile type exif")):
            exif = bytes.fromhex("".join(profile.split("\n")[3:]))
        if exif is not None and not tags_are_bounded(exif.removeprefix(b"Exif\0\0")):
            return 1
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow does not document its exceptions for damaged EXIF data
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image with 8 bits for each value to RGB: transparency on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _flattened(image)
    return image.convert("RGB")


def _flattened(image: Image.Image) -> Image.Image:
    """Return an image with transparency on white, converted in bands of rows to save memory."""
    rows = max(1, BAND_PIXELS // image.width)
    if rows < image.height:
        result = Image.new("RGB", image.size)
        for top in range(0, image.height, rows):
            box = (0, top, image.width, min(image.height, top + rows))
            result.paste(_flattened(image.crop(box)), box)
        return result
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _too_large(name: object, found: str, limit: int = MAX_PIXELS) -> str:
    return f"{name}: {found}, expected at most {limit // 1_000_000} million; make it smaller"

"""Formats of picture files: what is decoded, and what other files are called in messages."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

from xmodal.errors import ExtraMissing, install_command

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
"""Formats that are decoded, by Pillow's names; HEIF needs the package pillow-heif. Pillow has more:
some run other programs, and some (TGA) accept files of any content."""

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .tif .tiff .avif .jp2 .j2k .jpc .j2c "
    ".jpf .jpx .ppm .pgm .pbm .pnm .ico".split()
)
"""File endings of pictures in a folder (lower case)."""
HEIF_SUFFIXES = frozenset(".heic .heif .hif .heics .heifs".split())
"""Endings of HEIF files; they are pictures if pillow-heif is installed."""

_UNREAD = {
    "raw photo, not read (export it as JPEG)": (
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .gpr .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef "
        ".raf .raw .rw2 .rwl .sr2 .srf .srw .x3f"
    ),
    "film, not read": ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .webm .wmv",
    "drawing or document, not read (export it as PNG)": ".ai .emf .eps .pdf .ps .svg .svgz .wmf",
    "file of a picture editor, not read (export it as PNG)": ".afphoto .clip .kra .psb .psd .xcf",
    "archive, not read (unpack it, or name it instead of the folder)": (
        ".7z .bz2 .gz .rar .tar .tgz .xz .zip .zst"
    ),
    "picture in a format that is not read (convert it to PNG)": (
        ".bpg .cur .dcm .dds .dib .exr .fits .flif .hdr .icns .jxl .jxr .pcx .pfm .qoi .ras .sgi "
        ".tga .wdp .xbm .xpm"
    ),
}
_KINDS = {suffix: kind for kind, suffixes in _UNREAD.items() for suffix in suffixes.split()}

_HEIF_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_CONTENTS = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file"),
    (b"<", "a page of markup"),
    (b"{", "a JSON text"),
    (b"%pdf", "a PDF document"),
    (b"%!ps", "a PostScript document"),
    (b"8bps", "a Photoshop file"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x1a\x45\xdf\xa3", "a film"),
    (b"version https://git-lfs", "a Git LFS pointer, whose content was not downloaded"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cjxl ", "a JPEG XL picture"),
)
"""First bytes of files (lower case, after spaces) that often have the ending of a picture."""


@cache
def reads_heif() -> bool:
    """Whether pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is read as a picture."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in SUFFIXES or (suffix in HEIF_SUFFIXES and reads_heif())


def unread_kind(name: str) -> str | None:
    """Return why a picture or film of this name is not read, None for other files."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in HEIF_SUFFIXES:
        return f"HEIC picture, not read without pillow-heif ({install_command('heic')})"
    return _KINDS.get(suffix)


def is_heif(head: bytes) -> bool:
    """Whether the first bytes of a file (64 suffice) are those of HEIC or another HEIF picture."""
    brands = _brands(head)
    if not brands or not _AVIF_BRANDS.isdisjoint(brands):
        return False
    return not _HEIF_BRANDS.isdisjoint(brands) or brands[0] in (b"mif1", b"msf1")


def register_heif() -> None:
    """Add the decoder of HEIF to Pillow. Raises ExtraMissing without pillow-heif."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ExtraMissing("a HEIC picture", "heic") from None
    register_heif_opener()


def content_name(head: bytes) -> str | None:
    """Return what the first bytes of a file are, if it is something known that is no picture."""
    if not head:
        return "an empty file"
    if not head.strip(b"\0"):
        return "a file of zero bytes"
    if brands := _brands(head):
        is_film = _AVIF_BRANDS.isdisjoint(brands) and not is_heif(head)
        return "a film" if is_film else None
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for begin, name in _CONTENTS if start.startswith(begin)), None)


def _brands(head: bytes) -> list[bytes]:
    """Return the brands of an ISO media file: HEIF, AVIF, MP4; an empty list for other files."""
    if head[4:8] != b"ftyp":
        return []
    end = min(len(head), int.from_bytes(head[:4], "big"))
    return [head[8:12], *(head[place : place + 4] for place in range(16, end - 3, 4))]

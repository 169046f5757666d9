"""Bounds on the time that Pillow needs for the small parts of a picture file.

Pillow reads segments, chunks, comments and boxes one by one in Python. A file of 20 MB can have
millions of them, which take minutes. Usual files have fewer than a hundred.
"""

from __future__ import annotations

import io

MAX_READS = {
    b"\x89PNG": 200_000,  # some programs write a chunk for each line of a scan
    b"II": 400_000,  # TIFF, which may have a strip for each line
    b"MM": 400_000,
    b"BM": 2_000_000,  # compressed BMP, whose runs are read one by one
    b"P": 300_000,  # variants of PPM, whose numbers are read one by one
}
"""Maximum number of reads by the first bytes of a file."""
MAX_OTHER_READS = 20_000
"""Maximum number of reads of other files."""
MAX_JPEG_SEGMENTS, MAX_JPEG_HEADER = 10_000, 16 * 2**20
"""Maximum number of segments, and of their bytes, before the pixels of a JPEG."""


class TooManyParts(ValueError):
    """A file has more parts than are read."""


class BoundedFile(io.BytesIO):
    """The bytes of a file, which can be read a limited number of times. Raises TooManyParts."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        limits = (limit for start, limit in MAX_READS.items() if data.startswith(start))
        self._left = next(limits, MAX_OTHER_READS)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes."""
        self._left -= 1
        if self._left < 0:
            raise TooManyParts("more parts than are read")
        return super().read(size)


def jpeg_header_is_bounded(data: bytes) -> bool:
    """Whether the segments before the pixels of a JPEG are few, and not large.

    Pillow joins the bytes of EXIF segments, so that the time grows with the square of their size.
    """
    place = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        head = data[place : place + 4]
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
            return True  # damage, the end or pixels: at most a few more steps of Pillow
        if head[1] == 0xFF:
            place += 1  # a byte of padding
        elif head[1] <= 0x01 or 0xD0 <= head[1] <= 0xD8:
            place += 2  # a marker without a segment
        else:
            place += 2 + int.from_bytes(head[2:], "big")
        if place > MAX_JPEG_HEADER:
            return False
    return False

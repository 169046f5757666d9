"""Tags of TIFF files and of EXIF data, counted before Pillow reads them all.

Tags may overlap: a file of 1 MB can have 60,000 tags of 1 MB each, which Pillow would read into
60 GB of memory. Format: TIFF 6.0 (Adobe 1992), and BigTIFF, whose offsets have 8 bytes.
"""

from __future__ import annotations

import struct

MAX_VALUES = 2_000_000
"""Maximum number of numbers in all tags; Pillow makes a Python object of each."""
MARGIN = 65_536
"""Bytes by which tags may exceed the size of the file, because small tags often share bytes."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
"""Bytes of a value by type of tag; Pillow leaves out tags of other types."""
_BYTES = (1, 2, 7)
"""Types of tags that are read as one object."""
_SUBDIRECTORIES = (34665, 34853, 40965)
"""Tags that point to a directory: EXIF, GPS, interoperability."""


def tags_are_bounded(data: bytes) -> bool:
    """Whether the tags together are not larger than the TIFF data.

    Reading of a directory stops at a tag outside of the data, as in Pillow. Data that is not TIFF
    has no tags.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return True
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    number, pointer, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    pending = [struct.unpack_from(order + pointer, data, 8 if big else 4)[0]]
    size, values, seen = 0, 0, set()
    while pending:
        start = pending.pop()
        if start in seen or start + 8 > len(data):
            continue
        seen.add(start)
        first = start + struct.calcsize(number)
        count = struct.unpack_from(order + number, data, start)[0]
        last = min(count, (len(data) - first) // entry)
        for place in range(first, first + last * entry, entry):
            tag, kind, length, offset = struct.unpack_from(f"{order}HH{pointer * 2}", data, place)
            bytes_ = _SIZES.get(kind, 0) * length
            inline = bytes_ <= struct.calcsize(pointer)
            if not inline and offset + bytes_ > len(data):
                break
            size += bytes_
            values += 0 if kind in _BYTES else length
            if size > len(data) + MARGIN or values > MAX_VALUES:
                return False
            if tag in _SUBDIRECTORIES and inline:
                pending.append(offset)
    return True

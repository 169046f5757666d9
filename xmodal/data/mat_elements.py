"""Check of .mat files of MATLAB 5 to 7.2, before scipy reads them.

scipy trusts types and sizes in such a file: a wrong one makes it read or write outside of its
memory, which ends the process. Only the elements that are read are checked, and only arrays of
numbers and texts and cells of these are accepted.
Format: MathWorks, "MAT-File Format", chapter "Level 5 MAT-File Format".
"""

from __future__ import annotations

import math
import mmap
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

HEADER_BYTES = 128
MATRIX, COMPRESSED, INT8, INT32, UINT32, UTF8 = 14, 15, 1, 5, 6, 16
VALUE_TYPES = frozenset({*range(1, 8), 9, 12, 13, 16, 17, 18})
"""Types of elements with numbers or characters."""
CELL, CHARACTERS, NUMBERS = 1, 4, range(6, 16)
"""Classes of arrays."""
COMPLEX = 8
"""Flag of an array that has an imaginary part."""
MAX_DEPTH, MAX_DIMENSIONS = 4, 32
CHUNK = 1 << 20


class _Element(NamedTuple):
    """Type and content of an element."""

    kind: int
    content: memoryview


def check_elements(path: Path, names: Collection[str]) -> None:
    """Raise ValueError if the arrays ``names`` of a file are not safe to read.

    Files of MATLAB 4 are refused, because they have no checksums and no bounds. Those of MATLAB 7.3
    have another format, and are not checked.
    """
    with open(path, "rb") as file:
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES or 0 in header[:4]:
            raise ValueError("it is of MATLAB 4 or cut off, save it in version 5 to 7.2")
        order, version = ("<", header[125]) if header[126:] == b"IM" else (">", header[124])
        if version != 1:
            return
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for element in _elements(content[HEADER_BYTES:], order):
        _check_variable(element, order, names)


def _check_variable(element: _Element, order: str, names: Collection[str]) -> None:
    if element.kind == COMPRESSED:
        unpacked = zlib.decompressobj()  # compares a checksum at its end
        for start in range(0, len(element.content), CHUNK):
            rest = bytes(element.content[start : start + CHUNK])
            while rest and not unpacked.eof:
                unpacked.decompress(rest, CHUNK)
                rest = unpacked.unconsumed_tail
        if not unpacked.eof:
            raise ValueError("a compressed array is cut off")
    elif element.kind == MATRIX:
        _check_array(element.content, order, names, 1)
    else:
        raise ValueError(f"an array is of type {element.kind}")


def _check_array(data: memoryview, order: str, names: Collection[str], depth: int) -> None:
    """Check an array; outside of cells (depth 1) the values of those in ``names`` alone."""
    parts = list(_elements(data, order))
    if [part.kind for part in parts[:2]] != [UINT32, INT32] or len(parts[0].content) != 8:
        raise ValueError("an array has no class or no shape")
    class_ = parts[0].content[0 if order == "<" else 3]
    shape = parts[1].content
    if len(shape) % 4 or not 8 <= len(shape) <= 4 * MAX_DIMENSIONS or len(parts) < 3:
        raise ValueError("an array has no shape or no name")
    if parts[2].kind not in (INT8, UTF8):
        raise ValueError("an array has no name")
    if depth == 1 and bytes(parts[2].content).decode("latin1") not in names:
        return
    sizes = struct.unpack(f"{order}{len(shape) // 4}i", shape)
    count, values = math.prod(sizes), parts[3:]
    if min(sizes) < 0:
        raise ValueError(f"an array has the shape {sizes}")
    if class_ == CELL and depth < MAX_DEPTH:
        if count != len(values) or any(one.kind != MATRIX for one in values):
            raise ValueError(f"a cell array of the shape {sizes} has {len(values)} arrays")
        for one in values:
            _check_array(one.content, order, names, depth + 1)
    elif class_ == CHARACTERS or class_ in NUMBERS:
        is_complex = bool(parts[0].content[1 if order == "<" else 2] & COMPLEX)
        if len(values) != 1 + is_complex or any(one.kind not in VALUE_TYPES for one in values):
            raise ValueError("an array has no values, or values of an unknown type")
        if count > min(len(one.content) for one in values):
            raise ValueError(f"an array of the shape {sizes} has too few values")
    else:
        raise ValueError(f"an array has the class {class_}, expected numbers, texts or cells")


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """Yield the elements of a file or of an array."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack(f"{order}II", data[place : place + 8])
        if kind >> 16:  # a small element has its size, type and content in 8 bytes
            kind, size, start, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            place = end
        else:
            start, end = place + 8, len(data)
            place = start + size + (0 if kind == COMPRESSED else -size % 8)
        if start + size > end:
            raise ValueError("an element goes beyond its end")
        yield _Element(kind, data[start : start + size])

"""Rows of a table that are of one item, found in a first pass with 64 bits a row."""

from __future__ import annotations

import os
import unicodedata
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data.packed.names import PackedName
from xmodal.data.readers.columns import Columns, getter
from xmodal.data.readers.values import clean_pictures, clean_scalar

ALONE, MORE, LAST = 0, 1, 2
"""Of a row: no other row may be of its item; a later row may be; only earlier rows may be."""
_MASK = 2**64 - 1


class RowKeys:
    """Hashes of the ids or picture names of the rows of a table, in their order.

    Rows of one item have equal hashes, which decide when an item is complete. Rows of other items
    may have equal hashes too.
    """

    def __init__(self, columns: Columns, folder: Path) -> None:
        self._id, self._image = columns.id, columns.image
        self._folder = folder
        self._value_at = getter(columns)
        self._hashes = array("Q")

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the next row."""
        own_id = None if self._id is None else clean_scalar(self._value_at(row, self._id))
        if own_id is not None:
            key: object = ("id", own_id)
        else:
            names = () if self._image is None else clean_pictures(self._value_at(row, self._image))
            if names and not isinstance(names[0], PackedName):
                key = ("picture", self._plain(names[0]))
            else:  # a row of its own
                key = ("row", len(self._hashes))
        self._hashes.append(hash(key) & _MASK)

    def _plain(self, name: str) -> str:
        """Return a picture's name in a form that is equal for equal files."""
        name = name.replace("\\", "/")
        if not name.isascii():
            name = unicodedata.normalize("NFC", name)
        if name.startswith("/") or "//" in name or "./" in name:
            name = os.path.relpath(os.path.join(self._folder, name), self._folder)
        return name.casefold()

    def repeats(self) -> Repeats:
        """Return which rows have equal hashes."""
        hashes = np.frombuffer(self._hashes, np.uint64)
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        equal = ordered[1:] == ordered[:-1]
        if not equal.any():
            return Repeats(b"", hashes[:0])
        states = np.full(len(hashes), ALONE, np.uint8)
        of_ordered = np.full(len(hashes), ALONE, np.uint8)
        of_ordered[1:][equal] = LAST
        of_ordered[:-1][equal] = MORE
        states[order] = of_ordered
        return Repeats(states.tobytes(), hashes)


class Repeats:
    """State (ALONE, MORE or LAST) and hash of each row; without repeats, nothing is stored."""

    def __init__(self, states: bytes = b"", hashes: Any = ()) -> None:
        self._states, self._hashes = states, hashes

    def states(self) -> Iterator[int]:
        """Yield the state of each row; rows beyond the last one are ALONE."""
        yield from self._states
        while True:
            yield ALONE

    def hash(self, row: int) -> int:
        """Return the hash of a row, counted from 0, that is not ALONE."""
        return int(self._hashes[row])

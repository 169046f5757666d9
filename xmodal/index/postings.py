"""Inverted file: for each word the documents that have it, with the values that BM25 needs.

The documents are numbered by rows. All arrays are immutable; a change returns a new object, which
may share arrays with the old one. Arrays that are read from a file are mapped into memory.
"""

from __future__ import annotations

import os
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int64 = npt.NDArray[np.int64]
COLUMNS = {"starts": np.int64, "rows": np.int32, "codes": np.uint16, "lengths": np.int32}
"""Arrays of the file and their types."""
MAX_COUNT = 255
"""A word that occurs more often in a document counts as often as this."""


def _lucene_lengths() -> npt.NDArray[np.int32]:
    """Return the lengths of documents that Lucene distinguishes, ascending, (256,).

    ``SmallFloat.byte4ToInt`` of Lucene: up to 39 every length, then four significant bits.
    """
    small = list(range(24))
    floats = [b & 7 if b < 8 else (b & 7 | 8) << (b >> 3) - 1 for b in range(232)]
    return np.array(small + [24 + value for value in floats], np.int64).astype(np.int32)


LENGTHS = _lucene_lengths()


@dataclass(frozen=True, eq=False)
class Postings:
    """Words of ``n`` documents.

    ``words``: number of each word. The documents with word w are
    ``rows[starts[w] : starts[w + 1]]``, ascending. ``codes``, aligned with ``rows``: 256 times the
    number of occurrences, at most ``MAX_COUNT``, plus the number of the document's rounded length
    in ``LENGTHS``. ``lengths``: number of words of each document, (n,).
    """

    words: dict[str, int]
    starts: Int64
    rows: npt.NDArray[np.int32]
    codes: npt.NDArray[np.uint16]
    lengths: npt.NDArray[np.int32]

    @classmethod
    def of(cls, texts: Iterable[tuple[int, list[str]]], n: int) -> Postings:
        """Return the postings of ``n`` documents.

        ``texts``: rows, ascending, with the words of the document; other documents have no words.
        """
        words: dict[str, int] = {}
        numbers, own_rows, counts = array("q"), array("q"), array("q")
        for row, text in texts:
            numbers.extend([words.setdefault(word, len(words)) for word in text])
            own_rows.append(row)
            counts.append(len(text))
        lengths = np.zeros(n, np.int32)
        lengths[own_rows] = counts
        keys = np.array(numbers) * max(1, n) + np.repeat(np.array(own_rows), np.array(counts))
        keys, occurrences = np.unique(keys.astype(np.int64), return_counts=True)
        found, found_rows = np.divmod(keys, max(1, n))
        rounded = np.searchsorted(LENGTHS, lengths[found_rows], side="right") - 1
        codes = np.minimum(occurrences, MAX_COUNT) * 256 + rounded
        starts = np.searchsorted(found, np.arange(len(words) + 1))
        return cls(words, starts, found_rows.astype(np.int32), codes.astype(np.uint16), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def renumbered(self, new_rows: npt.NDArray[np.int32], n: int) -> Postings:
        """Return the postings of ``n`` documents, of which document i was row i before.

        ``new_rows``: new row of each document, -1 for one that is removed; ascending apart from
        these.
        """
        rows = new_rows[self.rows]
        lengths = np.zeros(n, np.int32)
        lengths[new_rows[new_rows >= 0]] = self.lengths[new_rows >= 0]
        if (new_rows >= 0).all():
            return Postings(self.words, self.starts, rows, self.codes, lengths)
        kept = rows >= 0
        starts = np.concatenate([[0], np.cumsum(kept)])[self.starts]
        used = np.diff(starts) > 0
        words = {word: number for number, word in enumerate(compress(self.words, used))}
        starts = np.concatenate([[0], starts[1:][used]])
        return Postings(words, starts, rows[kept], self.codes[kept], lengths)

    def joined(self, other: Postings) -> Postings:
        """Return the postings of both; no document has words in both."""
        words, n = dict(self.words), max(1, len(self))
        numbers = np.array([words.setdefault(word, len(words)) for word in other.words], np.int64)
        keys = np.repeat(numbers, np.diff(other.starts)) * n + other.rows
        order = np.argsort(keys)
        old = np.repeat(np.arange(len(self.words)), np.diff(self.starts)) * n + self.rows
        places = np.searchsorted(old, keys[order])
        counts = np.zeros(len(words), np.int64)
        counts[: len(self.words)] = np.diff(self.starts)
        counts[numbers] += np.diff(other.starts)
        return Postings(
            words,
            np.concatenate([[0], np.cumsum(counts)]),
            np.insert(self.rows, places, other.rows[order]),
            np.insert(self.codes, places, other.codes[order]),
            self.lengths + other.lengths,
        )

    def rows_of(self, word: str) -> slice:
        """Return the place of a word in ``rows`` and ``codes``, empty for an unknown word."""
        number = self.words.get(word)
        return slice(0) if number is None else slice(*self.starts[number : number + 2].tolist())

    def write(self, path: Path) -> int:
        """Write and sync a new file, an Arrow table of one row; return the CRC-32 of its bytes."""
        columns = {"words": pa.py_buffer("\n".join(self.words).encode())}
        columns |= {name: pa.py_buffer(getattr(self, name)) for name in COLUMNS}
        table = pa.record_batch({name: _one_value(data) for name, data in columns.items()})
        with open(path, "xb") as file:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write(table)
            file.flush()
            os.fsync(file.fileno())
        return _checksum(path)

    @classmethod
    def read(cls, path: Path, checksum: int) -> Postings:
        """Return the postings of a file. Raises OSError for a missing or damaged one."""
        if _checksum(path) != checksum:
            raise OSError("its content does not match the checksum")
        try:
            batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
            batch.validate(full=True)
            buffers = {name: batch[name].buffers()[2] for name in batch.schema.names}
            words = buffers.pop("words").to_pybytes().decode()
            arrays: dict[str, Any] = {
                name: np.frombuffer(buffers[name], kind) for name, kind in COLUMNS.items()
            }
            found = cls(
                {word: number for number, word in enumerate(words.split("\n") if words else [])},
                **arrays,
            )
            found._check()
        except (pa.ArrowException, AttributeError, LookupError, TypeError, ValueError) as error:
            raise OSError(f"it is not a file of words: {error}") from None
        return found

    def _check(self) -> None:
        """Raise ValueError for places outside of the arrays, which compiled code does not check."""
        places, rows = self.starts, self.rows
        if len(places) != len(self.words) + 1 or places[0] != 0 or (np.diff(places) < 0).any():
            raise ValueError("the words have no ascending places")
        if not places[-1] == len(rows) == len(self.codes):
            raise ValueError("the places do not fit the number of postings")
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise ValueError("a posting names a document that does not exist")


def _one_value(data: pa.Buffer) -> pa.LargeBinaryArray:
    """Return an array of one value without a copy of its bytes."""
    offsets = pa.py_buffer(np.array([0, data.size], np.int64))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, data])


def _checksum(path: Path) -> int:
    with pa.memory_map(str(path)) as file:
        return zlib.crc32(file.read_buffer())

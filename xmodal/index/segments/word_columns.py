"""Words of the documents of a segment as columns: an inverted file with the values of BM25.

word.texts      the different words, ascending (texts)
word.starts     (words + 1,) int64; the documents with word w are
word.rows       int32: rows[starts[w] : starts[w + 1]], ascending
word.codes      uint16, aligned with rows: 256 times the number of occurrences, at most 255,
                plus the number of the document's rounded length in ``LENGTHS``
word.lengths    (n,) int32, number of words of each document
word.totals     (2,) int64: documents with a word, and number of all words
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.index.segments.columns import Array, Columns, Int64
from xmodal.index.segments.text_column import TextColumn, text_columns

NAME = "word.texts"
MAX_COUNT = 255
"""A word that occurs more often in a document counts as often as this."""
MERGED_AT_ONCE = 1 << 21
"""Postings that are sorted in one step of a merging."""
Mask = npt.NDArray[np.bool_]


def _lucene_lengths() -> npt.NDArray[np.int32]:
    """Return the lengths of documents that Lucene distinguishes, ascending, (256,).

    ``SmallFloat.byte4ToInt`` of Lucene: up to 39 every length, then four significant bits.
    """
    small = list(range(24))
    floats = [b & 7 if b < 8 else (b & 7 | 8) << (b >> 3) - 1 for b in range(232)]
    return np.array(small + [24 + value for value in floats], np.int64).astype(np.int32)


LENGTHS = _lucene_lengths()


def word_columns(texts: Iterable[list[str]]) -> dict[str, Array]:
    """Return the columns of documents with these words."""
    words: dict[str, int] = {}
    numbers, counts = array("q"), array("q")
    for text in texts:
        numbers.extend([words.setdefault(word, len(words)) for word in text])
        counts.append(len(text))
    n, lengths = len(counts), np.array(counts, np.int64).astype(np.int32)
    ascending = sorted(words)
    rank = np.empty(len(words), np.int64)
    rank[[words[word] for word in ascending]] = np.arange(len(words))
    keys = rank[np.array(numbers, np.int64)] * max(1, n) + np.repeat(np.arange(n), lengths)
    keys.sort()
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    occurrences = np.diff(first, append=len(keys))
    keys = keys[first]
    found, rows = np.divmod(keys, max(1, n))
    rounded = np.searchsorted(LENGTHS, lengths[rows], side="right") - 1
    codes = np.minimum(occurrences, MAX_COUNT) * 256 + rounded
    starts = np.searchsorted(found, np.arange(len(words) + 1))
    return _columns(ascending, starts, rows, codes, lengths)


def _columns(
    words: Sequence[str], starts: Array, rows: Array, codes: Array, lengths: Array
) -> dict[str, Array]:
    totals = [np.count_nonzero(lengths), lengths.sum(dtype=np.int64)]
    return text_columns(NAME, words) | {
        "word.starts": starts.astype(np.int64, copy=False),
        "word.rows": rows.astype(np.int32, copy=False),
        "word.codes": codes.astype(np.uint16, copy=False),
        "word.lengths": lengths,
        "word.totals": np.array(totals, np.int64),
    }


class Postings(NamedTuple):
    """Documents with a word: their rows, ascending, and the codes of the word in them."""

    rows: npt.NDArray[np.int32]
    codes: npt.NDArray[np.uint16]


class WordColumns:
    """Words of a segment; only what is read is checked. Methods raise IndexFailure."""

    def __init__(self, columns: Columns) -> None:
        self.columns, self.texts = columns, TextColumn(columns, NAME)

    def postings(self, words: Sequence[str]) -> list[Postings]:
        """Return for each word the documents that have it, deleted or not."""
        numbers = self.texts.find(words)
        known = numbers[numbers >= 0]
        starts = self.columns.rows("word.starts", known, known + 2)
        first, last = starts[known], starts[known + 1]
        rows = self.columns.rows("word.rows", first, last)
        codes = self.columns.rows("word.codes", first, last)
        places = map(slice, first.tolist(), last.tolist())
        found = (Postings(rows[place], codes[place]) for place in places)
        none = Postings(rows[:0], codes[:0])
        return [next(found) if number >= 0 else none for number in numbers.tolist()]

    def totals(self, live: Mask | None) -> tuple[int, int]:
        """Return the number of live documents with a word, and the number of their words."""
        documents, words = self.columns.whole("word.totals").tolist()
        if live is None:
            return documents, words
        deleted = self.columns.whole("word.lengths")[~live]
        return documents - int(np.count_nonzero(deleted)), words - int(deleted.sum(dtype=np.int64))


def merge_word_columns(
    parts: Sequence[tuple[Columns, int, Int64]], order: Int64
) -> dict[str, Array]:
    """Return the word columns of the documents that remain of several segments.

    Arguments as those of :func:`.field_merging.merge_field_columns`.
    """
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    words = sorted(set().union(*(TextColumn(columns, NAME) for columns, _, _ in parts)))
    number_of = {word: number for number, word in enumerate(words)}
    sources, lengths, before = [], [], 0
    for columns, n, rows in parts:
        new_rows = np.full(n, -1, np.int32)
        new_rows[rows] = rank[before : before + len(rows)]
        before += len(rows)
        numbers = np.fromiter((number_of[word] for word in TextColumn(columns, NAME)), np.int64)
        sources.append(_Source(columns, numbers, new_rows))
        lengths.append(columns.whole("word.lengths")[rows])
    counts = np.zeros(len(words), np.int64)
    joined_rows: list[Array] = [np.zeros(0, np.int32)]
    joined_codes: list[Array] = [np.zeros(0, np.uint16)]
    for first, last in _ranges(sources, len(words)):
        chunks = [source.chunk(first, last) for source in sources]
        numbers, rows, codes = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
        ascending = np.lexsort((rows, numbers))
        joined_rows.append(rows[ascending])
        joined_codes.append(codes[ascending])
        counts[first:last] = np.bincount(numbers - first, minlength=last - first)
    used = np.flatnonzero(counts)
    starts = np.concatenate([[0], np.cumsum(counts[used])])
    ordered = np.concatenate([np.zeros(0, np.int32), *lengths])[order]
    rows, codes = np.concatenate(joined_rows), np.concatenate(joined_codes)
    return _columns([words[number] for number in used.tolist()], starts, rows, codes, ordered)


class _Source(NamedTuple):
    """A segment that is merged: new number of each word, new row of each document or -1."""

    columns: Columns
    numbers: Int64
    new_rows: npt.NDArray[np.int32]

    def chunk(self, first: int, last: int) -> tuple[Int64, Array, Array]:
        """Return new word, new row and code of the postings of the new words ``first : last``."""
        start, end = np.searchsorted(self.numbers, [first, last]).tolist()
        starts = self.columns.whole("word.starts")[start : end + 1]
        place = slice(int(starts[0]), int(starts[-1]))
        rows = self.new_rows[self.columns.whole("word.rows")[place]]
        kept = rows >= 0
        numbers = np.repeat(self.numbers[start:end], np.diff(starts))[kept]
        return numbers, rows[kept], self.columns.whole("word.codes")[place][kept]


def _ranges(sources: Sequence[_Source], words: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of words with about ``MERGED_AT_ONCE`` postings together."""
    counts = np.zeros(words, np.int64)
    for source in sources:
        counts[source.numbers] += np.diff(source.columns.whole("word.starts"))
    ends = np.cumsum(counts)
    first = 0
    while first < words:
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + MERGED_AT_ONCE, side="right")))
        yield first, last
        first = last

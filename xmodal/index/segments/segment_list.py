"""The segments of an index as one collection of documents.

Of each id, one document at most is not deleted: an added document deletes the older one. A
place is a pair of arrays: number of the segment, and row in it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from typing import NamedTuple

import numpy as np

from xmodal.index.documents import DocumentBatch
from xmodal.index.segments.columns import Int64
from xmodal.index.segments.segment import Segment, SegmentRecord

DECODED_AT_ONCE = 1 << 12
"""Ids of a segment that are read before the next ones."""


class Places(NamedTuple):
    """Places of documents: number of the segment and row of each, (n,); -1 if absent."""

    segments: Int64
    rows: Int64


class Listed(NamedTuple):
    """A document: its id, number of its segment and row in it, fields and origin as text."""

    id: str
    segment: int
    row: int
    fields: str
    origin: str


class SegmentList(NamedTuple):
    """Segments, oldest first; a change returns a new list, which shares the columns."""

    segments: tuple[Segment, ...] = ()

    def __len__(self) -> int:
        """Number of segments."""
        return len(self.segments)

    @property
    def live_count(self) -> int:
        """Number of documents."""
        return sum(segment.live_count for segment in self.segments)

    @property
    def records(self) -> tuple[SegmentRecord, ...]:
        """Records of the segments that are on disk."""
        return tuple(one.record for one in self.segments if one.record is not None)

    def find(self, ids: Sequence[str]) -> Places:
        """Return the places of ids."""
        segments, rows = np.full(len(ids), -1), np.full(len(ids), -1)
        missing = np.arange(len(ids))
        for number, segment in enumerate(self.segments):
            found = segment.find([ids[at] for at in missing.tolist()])
            segments[missing[found >= 0]] = number
            rows[missing[found >= 0]] = found[found >= 0]
            missing = missing[found < 0]
        return Places(segments, rows)

    def take(self, places: Places, bits: int) -> DocumentBatch:
        """Return the documents at places, in that order."""
        parts, origin = [DocumentBatch.empty(bits)], [np.zeros(0, np.int64)]
        for number in sorted(set(places.segments.tolist())):
            at = np.flatnonzero(places.segments == number)
            parts.append(self.segments[number].take(places.rows[at]))
            origin.append(at)
        if len(parts) == 2:
            return parts[1]
        return DocumentBatch.join(parts).take(np.argsort(np.concatenate(origin)))

    def without(self, places: Places) -> SegmentList:
        """Return the list without the documents at places; those that are absent are ignored."""
        changed = list(self.segments)
        for number in sorted(set(places.segments.tolist()) - {-1}):
            changed[number] = changed[number].without(places.rows[places.segments == number])
        return SegmentList(tuple(one for one in changed if one.live_count))

    def added(self, segment: Segment) -> SegmentList:
        """Return the list with the documents of a new segment, which replace those of equal ids."""
        older = self.without(self.find(list(segment.ids))) if self.segments else self
        return SegmentList((*older.segments, segment))

    def in_order(self, rows: Sequence[Int64] | None = None) -> Iterator[Listed]:
        """Yield documents in order of id.

        ``rows``: of each segment, ascending; by default those of all documents.
        """
        rows = [one.live_rows() for one in self.segments] if rows is None else rows
        return heapq.merge(*(self._listed(number, some) for number, some in enumerate(rows)))

    def batches(self, size: int, bits: int) -> Iterator[DocumentBatch]:
        """Yield all documents in order of id, at most ``size`` per batch."""
        documents = self.in_order()
        while some := list(islice(documents, size)):
            segments, rows = zip(*((one.segment, one.row) for one in some), strict=True)
            yield self.take(Places(np.array(segments), np.array(rows)), bits)

    def _listed(self, number: int, rows: Int64) -> Iterator[Listed]:
        """Yield documents of one segment."""
        segment = self.segments[number]
        for start in range(0, len(rows), DECODED_AT_ONCE):
            some = rows[start : start + DECODED_AT_ONCE]
            ids, texts, origins = segment.ids.take(some), segment.texts.take(some), [""] * len(some)
            if segment.origins is not None:
                origins = segment.origins.take(some)
            yield from map(Listed, ids, repeat(number), some.tolist(), texts, origins)

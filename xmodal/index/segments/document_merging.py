"""Columns of ids, texts, codes and vectors of several segments, merged chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmodal.index.documents import to_offsets
from xmodal.index.scan import padded
from xmodal.index.segments.columns import Array, Chunks, Column, Int64
from xmodal.index.segments.segment import Segment
from xmodal.index.segments.text_column import SAMPLED, sample_columns
from xmodal.index.spans import positions_of
from xmodal.modality import Modality

AT_ONCE = 1 << 15
"""Documents whose content is copied in one step."""


def order_of_ids(segments: Sequence[Segment], rows: Sequence[Int64]) -> Int64:
    """Return the order by id of the documents at ``rows`` of segments, one segment after another.

    UTF-8 bytes are in the order of code points.
    """
    import pyarrow as pa  # required by a save only, slow to load
    import pyarrow.compute as pc

    chunks = []
    for segment, kept in zip(segments, rows, strict=True):
        ends, content = (segment.columns.whole(f"id.{name}") for name in ("ends", "bytes"))
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(content)]
        ids = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(segment), buffers)
        chunks.append(ids if len(kept) == len(segment) else ids.take(pa.array(kept)))
    order: Int64 = pc.sort_indices(pa.concat_arrays(chunks)).to_numpy().astype(np.int64)
    return order


@dataclass(frozen=True, eq=False)
class MergedDocuments:
    """Documents in their new order: number of the segment and row in it of each, (n,)."""

    segments: Sequence[Segment]
    numbers: npt.NDArray[np.int16]
    rows: Int64

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self, name: str) -> dict[str, Column]:
        """Return the columns of texts; segments without them have empty ones."""
        lengths = np.zeros(len(self), np.int64)
        for at, segment, rows in self._by_segment():
            if f"{name}.ends" in segment.columns.names:
                ends = segment.columns.whole(f"{name}.ends")
                lengths[at] = ends[rows + 1] - ends[rows]
        ends = to_offsets(lengths)
        content = Chunks(np.uint8, (int(ends[-1]),), self._bytes(name))
        return {f"{name}.ends": ends, f"{name}.bytes": content}

    def id_samples(self) -> dict[str, Column]:
        """Return the samples of the ids."""
        places = [*range(0, len(self), SAMPLED), len(self) - 1]
        pairs = zip(self.numbers[places].tolist(), self.rows[places].tolist(), strict=True)
        *samples, last = [self.segments[number].ids[row] for number, row in pairs]
        return dict(sample_columns("id", samples, last))

    def codes(self, modality: Modality) -> tuple[dict[str, Column], int]:
        """Return the columns of codes and vectors of a modality, and the number of codes."""
        counts = np.zeros(len(self), np.int64)
        for at, segment, rows in self._by_segment():
            counts[at] = segment.counts(modality)[rows]
        offsets = to_offsets(counts)
        n = int(offsets[-1])
        words = -(-self.segments[0].bits // 64)
        columns: dict[str, Column] = {
            f"codes.{modality}": Chunks(np.uint64, (words, padded(n)), self._words(modality, n))
        }
        if not (counts == 1).all():
            columns[f"offsets.{modality}"] = offsets
        if (dim := self.segments[0].dim) is not None:
            columns[f"vectors.{modality}"] = Chunks(np.int8, (n, dim), self._vectors(modality))
        return columns, n

    def _by_segment(self) -> Iterator[tuple[Int64, Segment, Int64]]:
        """Yield the places of the documents of each segment, the segment, and their rows."""
        for number, segment in enumerate(self.segments):
            at = np.flatnonzero(self.numbers == number)
            yield at, segment, self.rows[at]

    def _bytes(self, name: str) -> Iterator[Array]:
        """Yield the bytes of texts."""
        stored = []
        for segment in self.segments:
            has = f"{name}.ends" in segment.columns.names
            ends = segment.columns.whole(f"{name}.ends") if has else np.zeros(len(segment) + 1, int)
            content = segment.columns.whole(f"{name}.bytes").data if has else memoryview(b"")
            stored.append((ends, content))
        for numbers, rows in self._chunks():
            starts, ends = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
            for number in np.unique(numbers).tolist():
                at = numbers == number
                starts[at], ends[at] = stored[number][0][rows[at]], stored[number][0][rows[at] + 1]
            spans = zip(numbers.tolist(), starts.tolist(), ends.tolist(), strict=True)
            pieces = [stored[number][1][start:end] for number, start, end in spans]
            yield np.frombuffer(b"".join(pieces), np.uint8)

    def _words(self, modality: Modality, n: int) -> Iterator[Array]:
        """Yield the codes word by word, each word padded to whole blocks."""
        codes = [segment.columns.whole(f"codes.{modality}") for segment in self.segments]
        for word in range(len(codes[0])):
            for numbers, rows in self._chunks():
                yield self._gathered([one[word] for one in codes], modality, numbers, rows)
            yield np.zeros(padded(n) - n, np.uint64)

    def _vectors(self, modality: Modality) -> Iterator[Array]:
        """Yield the vectors of codes."""
        vectors = [segment.columns.whole(f"vectors.{modality}") for segment in self.segments]
        for numbers, rows in self._chunks():
            yield self._gathered(vectors, modality, numbers, rows)

    def _gathered(
        self, stored: Sequence[Array], modality: Modality, numbers: Array, rows: Int64
    ) -> Array:
        """Return what ``stored`` has, for each segment and code, of the codes of documents."""
        starts, ends = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        for number in np.unique(numbers).tolist():
            at = numbers == number
            starts[at], ends[at] = self.segments[number].spans(modality, rows[at])
        positions, sources = positions_of(starts, ends), np.repeat(numbers, ends - starts)
        found = np.empty((len(positions), *stored[0].shape[1:]), stored[0].dtype)
        for number in np.unique(sources).tolist():
            at = sources == number
            found[at] = stored[number][positions[at]]
        return found

    def _chunks(self) -> Iterator[tuple[npt.NDArray[np.int16], Int64]]:
        """Yield number of the segment and row of some documents after others."""
        for start in range(0, len(self), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            yield self.numbers[some], self.rows[some]

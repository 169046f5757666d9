"""A segment: documents sorted by id, stored in columns that do not change.

Columns, for ``n`` documents and each modality M:

- ``id``, with samples, and ``fields`` (JSON), ``origin`` if one is known: texts.
- ``codes.M``: (words, m) uint64, the codes word by word, padded with zeros to whole blocks of the
  scan. ``offsets.M``: (n + 1,) int64, the first code of each document; left out if each document
  has exactly one code.
- ``vectors.M``: (codes, dim) int8, if there are vectors.

``meta`` has ``documents``, ``bits``, ``codes`` (number of codes of each modality) and ``dim``.
"""

from __future__ import annotations

import copy
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.index.bm25 import Part as WordPart
from xmodal.index.code_search import Part
from xmodal.index.documents import DocumentBatch, to_offsets
from xmodal.index.scan import CodeColumn, Mask, word_major
from xmodal.index.segments.column_file import Checked, ColumnFile, FileRecord, write_columns
from xmodal.index.segments.columns import Array, Column, Columns, Int64, MemoryColumns
from xmodal.index.segments.deletions import DeletedRecord, read_live, write_deletions
from xmodal.index.segments.field_building import field_columns
from xmodal.index.segments.field_columns import NAMES as FIELDS
from xmodal.index.segments.field_columns import FieldColumns
from xmodal.index.segments.text_column import SAMPLED, TextColumn, sample_columns, text_columns
from xmodal.index.segments.word_columns import NAME as WORDS
from xmodal.index.segments.word_columns import WordColumns, word_columns
from xmodal.index.spans import positions_of
from xmodal.index.words import VERSION, document_words
from xmodal.modality import MODALITIES, Modality

PREFIX = "segment-"
"""Beginning of the names of the files."""
log = logging.getLogger(__name__)


class SegmentRecord(NamedTuple):
    """Record of a segment on disk: name and number of documents, its file, and deletions."""

    name: str
    documents: int
    file: FileRecord
    deleted: DeletedRecord | None = None


class Segment:
    """``n`` documents in columns; ``live``: those that are not deleted, (n,) bool, None for all.

    ``record``: of the files, None for a segment in memory; its ``deleted`` is None while the
    deletions are not on disk. Methods raise IndexFailure for damaged columns. A segment is
    immutable.
    """

    def __init__(
        self, columns: Columns, live: Mask | None = None, record: SegmentRecord | None = None
    ) -> None:
        self.columns, self.live, self.record = columns, live, record
        self.bits, self.dim = int(columns.meta["bits"]), columns.meta["dim"]
        self.ids, self.texts = TextColumn(columns, "id"), TextColumn(columns, "fields")
        self.origins = TextColumn(columns, "origin") if "origin.ends" in columns.names else None

    @classmethod
    def of(cls, batch: DocumentBatch) -> Segment:
        """Return the documents of a batch in memory; of equal ids the last is stored."""
        batch = _sorted(batch)
        arrays: dict[str, Array] = text_columns("id", batch.ids)
        arrays |= sample_columns("id", batch.ids[::SAMPLED], batch.ids[-1])
        arrays |= text_columns("fields", batch.fields)
        if any(batch.origins):
            arrays |= text_columns("origin", batch.origins)
        for modality in MODALITIES:
            arrays[f"codes.{modality}"] = word_major(batch.packed[modality])
            if not (batch.counts(modality) == 1).all():
                arrays[f"offsets.{modality}"] = batch.offsets[modality]
            if batch.vectors:
                arrays[f"vectors.{modality}"] = batch.vectors[modality]
        counts = {modality: len(batch.packed[modality]) for modality in MODALITIES}
        return cls(MemoryColumns(arrays, to_meta(len(batch), batch.bits, counts, batch.dim)))

    @classmethod
    def open(cls, folder: Path, record: SegmentRecord) -> Segment:
        """Return the segment of a record; raises IndexFailure."""
        columns = ColumnFile.open(folder / record.name, record.file)
        if record.deleted is None:
            return cls(columns, None, record)
        return cls(columns, read_live(folder, record.deleted, record.documents), record)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def live_count(self) -> int:
        """Number of documents that are not deleted."""
        return len(self) if self.live is None else int(np.count_nonzero(self.live))

    def live_rows(self, mask: Mask | None = None) -> Int64:
        """Return the rows of the documents of ``mask`` that are not deleted, ascending."""
        accepted = self.accepted(mask)
        return np.arange(len(self)) if accepted is None else np.flatnonzero(accepted)

    def accepted(self, mask: Mask | None) -> Mask | None:
        """Return the documents of ``mask`` that are not deleted, (n,); None for all."""
        if mask is None or self.live is None:
            return self.live if mask is None else mask
        accepted: Mask = mask & self.live
        return accepted

    def count(self, modality: Modality, mask: Mask | None) -> int:
        """Return the number of documents of ``mask`` with a code that are not deleted."""
        accepted = self.with_code(modality, mask)
        return len(self) if accepted is None else int(np.count_nonzero(accepted))

    def with_code(self, modality: Modality, mask: Mask | None) -> Mask | None:
        """Return the documents of ``mask`` with a code that are not deleted; None for all."""
        accepted = self.accepted(mask)
        if f"offsets.{modality}" not in self.columns.names:
            return accepted
        has: Mask = self.counts(modality) > 0
        return has if accepted is None else has & accepted

    def without(self, rows: Int64) -> Segment:
        """Return the segment with deleted rows; all columns are shared."""
        changed = copy.copy(self)
        changed.live = np.ones(len(self), np.bool_) if self.live is None else self.live.copy()
        changed.live[rows] = False
        if self.record is not None:
            changed.record = self.record._replace(deleted=None)
        return changed

    def find(self, ids: Sequence[str]) -> Int64:
        """Return the row of each id, -1 for one that is absent or deleted."""
        rows = self.ids.find(ids)
        if self.live is not None:
            rows[~self.live[rows]] = -1
        return rows

    @cached_property
    def fields(self) -> FieldColumns:
        """Columns of the fields; those of a segment in memory are computed now."""
        columns = self.columns
        if f"{FIELDS}.ends" not in columns.names:
            columns = MemoryColumns(field_columns(list(self.texts)))
        return FieldColumns(columns, len(self))

    @property
    def has_words(self) -> bool:
        """Whether the columns contain the words, of the present version."""
        return f"{WORDS}.ends" in self.columns.names and self.columns.meta["words"] == VERSION

    @cached_property
    def words(self) -> WordColumns:
        """Columns of the words; computed now in memory, and for another version of the words."""
        columns = self.columns
        if not self.has_words:
            if self.record is not None:
                log.warning(
                    "%s: words of another version, those of %s documents are computed again; "
                    "the next save stores them",
                    *(self.record.name, f"{len(self):,}"),
                )
            columns = MemoryColumns(self._word_columns())
        return WordColumns(columns)

    def _word_columns(self) -> dict[str, Array]:
        pairs = zip(map(json.loads, self.texts), self.ids, strict=True)
        return word_columns(document_words(fields, id_) for fields, id_ in pairs)

    def code_part(self, modality: Modality) -> Part:
        """Return the codes of a modality for a search."""
        name, count = f"codes.{modality}", int(self.columns.meta["codes"][modality])
        offsets, vectors = f"offsets.{modality}", f"vectors.{modality}"
        return Part(
            CodeColumn(self.columns.whole(name), count),
            self.ids.take,
            self.columns.whole(offsets) if offsets in self.columns.names else None,
            self.live,
            partial(self.columns.rows, vectors) if self.dim is not None else None,
        )

    def word_part(self) -> WordPart:
        """Return the words for a search."""
        return WordPart(self.words, self.ids.take, len(self), self.live)

    def live_codes(self, modality: Modality) -> int:
        """Return the number of codes of the documents that are not deleted."""
        if self.live is None:
            return int(self.columns.meta["codes"][modality])
        return int(self.counts(modality)[self.live].sum())

    def spans(self, modality: Modality, rows: Int64) -> tuple[Int64, Int64]:
        """Return the first code, and the last one + 1, of documents."""
        name = f"offsets.{modality}"
        if name not in self.columns.names:
            return rows, rows + 1
        offsets = self.columns.rows(name, rows, rows + 2)
        return offsets[rows], offsets[rows + 1]

    def counts(self, modality: Modality) -> Int64:
        """Return the number of codes of each document, (n,)."""
        name = f"offsets.{modality}"
        if name not in self.columns.names:
            return np.ones(len(self), np.int64)
        return np.diff(self.columns.whole(name))

    def take(self, rows: Int64) -> DocumentBatch:
        """Return the documents at ``rows``, in that order."""
        packed: dict[Modality, npt.NDArray[np.uint8]] = {}
        offsets: dict[Modality, npt.NDArray[np.int64]] = {}
        vectors: dict[Modality, npt.NDArray[np.int8]] = {}
        for modality in MODALITIES:
            starts, ends = self.spans(modality, rows)
            offsets[modality] = to_offsets(ends - starts)
            positions = positions_of(starts, ends)
            words = self.columns.whole(f"codes.{modality}")[:, positions]
            packed[modality] = (
                np.ascontiguousarray(words.T).view(np.uint8)[:, : self.bits // 8].copy()
            )
            if self.dim is not None:
                stored = self.columns.rows(f"vectors.{modality}", starts, ends)
                vectors[modality] = stored[positions]
        return DocumentBatch(
            self.ids.take(rows),
            packed,
            offsets,
            self.texts.take(rows),
            vectors,
            self.origins.take(rows) if self.origins is not None else [],
        )

    # ---- files ---------------------------------------------------------------------------------

    def write(self, folder: Path) -> Segment:
        """Write all columns of a segment in memory to a new file; return the segment on disk."""
        sources = (self.columns, self.fields.columns, self.words.columns)
        arrays = {name: source.whole(name) for source in sources for name in source.names}
        return write_segment(folder, arrays, self.columns.meta, self.live)

    def with_deletions_on_disk(self, folder: Path) -> Segment:
        """Return the segment, on disk, after its deletions were written, if they are not yet."""
        assert self.record is not None
        if self.live is None or self.record.deleted is not None:
            return self
        changed = copy.copy(self)
        changed.record = self.record._replace(deleted=write_deletions(folder, self.live))
        return changed

    def bytes_read(self, *, whole: bool) -> int:
        """Return the bytes of the columns on disk that were read whole, or in part."""
        columns = self.columns
        return columns.bytes_read(whole=whole) if isinstance(columns, ColumnFile) else 0

    def check(self) -> Iterator[Checked]:
        """Check all columns on disk; yield their parts."""
        if isinstance(self.columns, ColumnFile):
            yield from self.columns.check()


def write_segment(
    folder: Path,
    columns: Mapping[str, Column],
    meta: Mapping[str, Any],
    live: Mask | None = None,
) -> Segment:
    """Write columns to a new file; return the segment on disk."""
    name = f"{PREFIX}{secrets.token_hex(8)}"
    file = write_columns(folder / name, columns, meta)
    written = Segment.open(folder, SegmentRecord(name, int(meta["documents"]), file))
    written.live = live
    return written


def to_meta(n: int, bits: int, codes: dict[Modality, int], dim: int | None) -> dict[str, Any]:
    """Return the ``meta`` of a segment."""
    return {"documents": n, "bits": bits, "codes": codes, "dim": dim, "words": VERSION}


def _sorted(batch: DocumentBatch) -> DocumentBatch:
    """Return the documents of a batch sorted by id; of equal ids the last."""
    ids = batch.ids
    if all(a < b for a, b in pairwise(ids)):
        return batch
    last = {id_: row for row, id_ in enumerate(ids)}
    return batch.take([last[id_] for id_ in sorted(last)])

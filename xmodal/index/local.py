"""The local index: exact search over segments of documents, stored in a folder.

Documents lie in segments (see :mod:`xmodal.index.segments.segment`), memory-mapped from files whose
content is checked when it is first used. Added documents are collected and become a segment at the
next search. A save writes new files and replaces the commit file (see
:mod:`xmodal.index.segments.commit`): if the process is killed, the folder contains the old index or
the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal.codes import BinaryCodes, check_bits
from xmodal.errors import ConfigError, IndexFailure, IndexMissing, XmodalError
from xmodal.index.bm25 import BM25
from xmodal.index.code_search import CodeSearch, Match
from xmodal.index.contract import WINDOW, Facets, Hit, Hits, WordsHit, WordsQuery
from xmodal.index.documents import Codes, DocumentBatch, match_vectors, to_batch
from xmodal.index.filters import Condition, parse
from xmodal.index.folder import (
    FORMER_FILE,
    UNFINISHED,
    FileIdentity,
    check_folder,
    disk_usage,
    identity,
    is_index,
    lock_index,
    remove_unused,
    sync,
)
from xmodal.index.moved_pictures import find_pictures
from xmodal.index.origins import Entry, read_origin
from xmodal.index.query_codes import QueryCodes, to_query_codes
from xmodal.index.scan import Mask
from xmodal.index.segments.commit import FILE, Commit, check_files, read_commit, write_commit
from xmodal.index.segments.field_columns import Part as FieldPart
from xmodal.index.segments.field_columns import check_fields, facets
from xmodal.index.segments.merging import merge, plan
from xmodal.index.segments.segment import Segment, SegmentRecord
from xmodal.index.segments.segment_list import Places, SegmentList
from xmodal.index.validation import (
    check_dim,
    check_identity,
    check_ids,
    check_k,
    check_search,
    check_target,
    check_width,
)
from xmodal.modality import MODALITIES, Modality

if TYPE_CHECKING:
    from xmodal.index.former_format import StoredDocuments

PART = 100_000
"""Added documents that are written to a file before the next ones are collected."""


def open_folder(
    folder: str | Path,
    *,
    bits: int | None = None,
    fingerprint: str | None = None,
    create: bool = False,
) -> HammingIndex:
    """Open the index in ``folder``, or with ``create`` make one of ``bits`` bits there.

    Raises IndexMissing, IndexMismatch, ConfigError if ``bits`` is missing, and IndexFailure for a
    folder that is not an index.
    """
    path = Path(folder)
    check_folder(path)
    if is_index(path):
        return HammingIndex.load(path, bits=bits, fingerprint=fingerprint)
    if not create:
        found = f", which has no {FILE}" if path.exists() else ""
        raise IndexMissing(
            f"no index at {path}{found}: make one with xmodal index DATA --index {path}"
        )
    if bits is None:
        raise ConfigError(f"bits is None, expected the width of the codes of a new index at {path}")
    return HammingIndex(bits, fingerprint=fingerprint, folder=path)


class HammingIndex:
    """Exact search over codes in memory; see :class:`xmodal.index.contract.Index` for the contract.

    ``bits``: width of the codes. ``fingerprint``: of their encoder, or None if unknown. ``save``
    and ``close`` write the index to ``folder``; without a folder it exists in memory only.
    """

    def __init__(
        self, bits: int, *, fingerprint: str | None = None, folder: str | Path | None = None
    ) -> None:
        self.bits = check_bits(bits)
        self.fingerprint = fingerprint
        self.folder = Path(folder) if folder is not None else None
        self._loaded: FileIdentity | None = None  # state of the folder that was opened or saved
        self._unusable: FileIdentity | tuple[()] | None = ()  # () is the identity of no state
        self._dirty = folder is not None  # a new index is saved even if it is empty
        self._pending: list[DocumentBatch] = []
        self._segments = SegmentList()
        self._saved: tuple[SegmentRecord, ...] = ()  # of the state that was opened or saved
        self._clear_derived()

    def add(
        self,
        documents: DocumentBatch | Sequence[str],
        *,
        image: Codes | None = None,
        text: Codes | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> int:
        """Store documents; see the contract. ``save`` and ``close`` make them durable."""
        batch = to_batch(documents, image=image, text=text, fields=fields)
        check_width(batch.bits, self.bits)
        if len(self._segments) or self._pending:
            batch = match_vectors(batch, self.dim)
        if len(batch):
            self._pending.append(batch)
        self._dirty = True
        if sum(map(len, self._pending)) >= PART:
            self._merge()
        return len(batch)

    def search(
        self,
        queries: BinaryCodes | QueryCodes,
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
        window: int = WINDOW,
    ) -> Hits:
        """Return the best ``k`` documents for each query; see the contract."""
        check_search(queries, self.bits, k, target, radius)
        queries = to_query_codes(queries)
        check_dim(queries, self.dim)
        conditions = parse(where)
        self._merge()
        found = self._code_search(target).search(
            queries,
            k,
            radius=self.bits if radius is None else radius,
            window=window,
            masks=self._masks(conditions),
        )
        hits = iter(self._hits(list(chain.from_iterable(found))))
        return [list(islice(hits, len(matches))) for matches in found]

    def search_words(
        self,
        queries: Sequence[WordsQuery],
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
    ) -> list[list[WordsHit]]:
        """Return the best ``k`` documents for each query; see the contract of a full-text index."""
        check_target(target)
        check_k(k)
        conditions = parse(where)
        self._merge()
        accepted = [
            segment.with_code(target, mask)
            for segment, mask in zip(self._segments.segments, self._masks(conditions), strict=True)
        ]
        ranking = self._ranking()
        return [ranking.search(query.text, query.excluded, k, accepted) for query in queries]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Segments of the index, oldest first."""
        self._merge()
        return self._segments.segments

    @property
    def dim(self) -> int | None:
        """Dimension of the stored vectors, or None without vectors."""
        parts: list[Segment | DocumentBatch] = [*self._segments.segments, *self._pending]
        return parts[0].dim if parts else None

    def measure(
        self, query: BinaryCodes | QueryCodes, ids: Sequence[str], *, target: Modality
    ) -> dict[str, Hit]:
        """Return the hits that documents would be for one query; see the contract."""
        check_search(query, self.bits, 1, target, None)
        query = to_query_codes(query)
        check_dim(query, self.dim)
        self._merge()
        places = self._segments.find(list(dict.fromkeys(ids)))
        rows = [places.rows[places.segments == part] for part in range(len(self._segments))]
        matches = self._code_search(target).measure(query, rows)
        return {hit.id: hit for hit in self._hits(matches)}

    def count(self, target: Modality, where: Mapping[str, Any] | None = None) -> int:
        """Return the number of documents with a code of ``target``; see the contract."""
        conditions = parse(where)
        self._merge()
        masks = self._masks(conditions)
        return sum(
            segment.count(target, mask)
            for segment, mask in zip(self._segments.segments, masks, strict=True)
        )

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; see the contract."""
        check_ids(ids)
        self._merge()
        places = self._segments.find(list(set(ids)))
        count = int(np.count_nonzero(places.rows >= 0))
        if count:
            self._segments = self._segments.without(places)
            self._dirty = True
            self._clear_derived()
        return count

    def get(self, ids: Sequence[str]) -> DocumentBatch:
        """Return codes and fields of the ids that exist; see the contract."""
        self._merge()
        places = self._segments.find(list(dict.fromkeys(ids)))
        found = places.rows >= 0
        return self._segments.take(Places(*(array[found] for array in places)), self.bits)

    def entries(
        self, *, where: Mapping[str, Any] | None = None, source: str | None = None
    ) -> Iterator[Entry]:
        """Yield documents without codes; see :class:`xmodal.index.origins.ListedIndex`."""
        conditions = parse(where)
        self._merge()
        rows = [
            segment.live_rows(mask)
            for segment, mask in zip(self._segments.segments, self._masks(conditions), strict=True)
        ]
        for one in self._segments.in_order(rows):
            origin = read_origin(one.origin)
            if source is None or (origin is not None and origin.source == source):
                yield Entry(one.id, json.loads(one.fields), origin)

    def count_codes(self) -> dict[Modality, int]:
        """Return the number of stored codes of each modality."""
        self._merge()
        return {
            modality: sum(segment.live_codes(modality) for segment in self._segments.segments)
            for modality in MODALITIES
        }

    def disk_usage(self) -> dict[str, int]:
        """Return the bytes of each file and subfolder of the index; none for one in memory."""
        return {} if self.folder is None else disk_usage(self.folder)

    def facets(self, max_values: int = 20) -> Facets:
        """Return fields by which a search can be narrowed; see the contract."""
        self._merge()
        return facets(self._field_parts(), max_values)

    def __len__(self) -> int:
        self._merge()
        return self._segments.live_count

    def __enter__(self) -> HammingIndex:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()

    def close(self) -> None:
        """Save, if the index has a folder."""
        if self.folder is not None:
            self.save()

    def save(self) -> None:
        """Write the index to its folder, atomically; no effect if nothing changed.

        Raises ConfigError without a folder, IndexFailure if another process changed the file since
        it was opened, InUse if another process writes the folder now.
        """
        if self.folder is None:
            raise ConfigError("this index has no folder: pass one when the index is created")
        if not self._dirty:
            return
        self._merge()
        with lock_index(self.folder):
            if identity(self.folder) != self._loaded:
                raise IndexFailure(
                    f"{self.folder} was changed by another process since it was opened: "
                    "open it again and repeat"
                )
            self._remove_unused()
            new = self.folder / f"{UNFINISHED}{os.getpid()}"
            try:
                segments = SegmentList(tuple(self._written(self.folder)))
                commit = Commit(self.bits, self.fingerprint, segments.records)
                check_files(self.folder, commit)
                write_commit(new, commit)
                self._saved = (*self._saved, *commit.segments)  # until one is known to be it
                os.replace(new, self.folder / FILE)
                self._loaded, self._saved = identity(self.folder), commit.segments
                self._segments = segments
                self._clear_derived()
                sync(self.folder)
            finally:
                new.unlink(missing_ok=True)
                self._remove_unused()
        self._dirty = False

    def _written(self, folder: Path) -> Iterator[Segment]:
        """Yield all segments, those in memory after they were written, with their deletions."""
        segments = self._segments.segments
        groups = plan(segments)
        merged = {number for group in groups for number in group}
        for number, segment in enumerate(segments):
            if number not in merged:
                on_disk = segment if segment.record else segment.write(folder)
                yield on_disk.with_deletions_on_disk(folder)
        for group in groups:
            yield merge([segments[number] for number in group], folder)

    @classmethod
    def load(cls, folder: Path, *, bits: int | None, fingerprint: str | None) -> HammingIndex:
        """Return the index saved in ``folder``; raises IndexMismatch or IndexFailure."""
        loaded = identity(folder)
        try:
            found = _read(folder, loaded)
            check_identity(
                str(folder),
                bits=found.bits,
                fingerprint=found.fingerprint,
                expected_bits=bits,
                expected_fingerprint=fingerprint,
            )
            segments = tuple(found.open_segments(folder))
        except IndexFailure:
            if identity(folder) == loaded:
                raise
            # Another process saved the index meanwhile.
            return cls.load(folder, bits=bits, fingerprint=fingerprint)
        index = cls(found.bits, fingerprint=found.fingerprint or fingerprint, folder=folder)
        index._segments = SegmentList(segments)
        index._loaded, index._saved = loaded, index._segments.records
        index._dirty = False
        return index

    def verify(self) -> None:
        """Check all columns on disk; raises IndexFailure for the first that is damaged."""
        for segment in self._segments.segments:
            segment.verify()

    def reload_if_changed(self) -> HammingIndex | None:
        """Return the index that another process saved in the folder, or None if unchanged.

        Unsaved documents of this index are not part of it. Raises the errors of
        :func:`open_folder`, once per version of the file: an unusable file is not read again.
        """
        if self.folder is None:
            return None
        found = identity(self.folder)
        if found in (self._loaded, self._unusable):
            return None
        try:
            return open_folder(self.folder, bits=self.bits, fingerprint=self.fingerprint)
        except XmodalError:
            self._unusable = found
            raise

    def codes(self, modality: Modality) -> tuple[list[str], BinaryCodes]:
        """Return all codes of ``modality``, in order of id, and the document id of each."""
        batches = list(self.batches(PART))
        return DocumentBatch.join([DocumentBatch.empty(self.bits), *batches]).codes(modality)

    def batches(self, size: int = 4096) -> Iterator[DocumentBatch]:
        """Yield all documents in order of id, at most ``size`` per batch."""
        self._merge()
        yield from self._segments.batches(size, self.bits)

    # ---- implementation ------------------------------------------------------------------------

    def _hits(self, matches: Sequence[Match]) -> list[Hit]:
        """Return matches as hits, with the present paths of their pictures."""
        hits: dict[int, Hit] = {}
        for part in {match.part for match in matches}:  # one look-up of texts for each
            segment = self._segments.segments[part]
            places = [place for place, match in enumerate(matches) if match.part == part]
            rows = [matches[place].row for place in places]
            ids, fields = segment.ids.take(rows), map(json.loads, segment.texts.take(rows))
            if self.folder is not None and segment.origins is not None:
                origins = segment.origins.take(rows)
                fields = map(find_pictures, fields, origins, repeat(self.folder))
            for place, id_, values in zip(places, ids, fields, strict=True):
                _, _, distance, nearest, similarity = matches[place]
                hits[place] = Hit(id_, distance, values, nearest=nearest, similarity=similarity)
        return [hits[place] for place in range(len(matches))]

    def _remove_unused(self) -> None:
        """Remove the files in the folder that are neither saved nor of a segment of this index."""
        assert self.folder is not None
        records = (*self._saved, *self._segments.records)
        is_former = self._loaded is not None and self._loaded[0] == FORMER_FILE
        remove_unused(self.folder, Commit(self.bits, None, records).files, former=not is_former)

    def _clear_derived(self) -> None:
        """Drop data computed from the segments."""
        self._bm25: BM25 | None = None
        self._searches: dict[Modality, CodeSearch] = {}

    def _merge(self) -> None:
        """Make a segment of the pending documents; of equal ids the last remains."""
        if not self._pending:
            return
        segment = Segment.of(DocumentBatch.join(self._pending))
        if self.folder is not None and len(segment) >= PART:  # so that memory is bounded
            check_folder(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            segment = segment.write(self.folder)
        self._segments = self._joined(self._segments.added(segment))
        self._pending = []
        self._clear_derived()

    def _joined(self, segments: SegmentList) -> SegmentList:
        """Return the segments after those in memory were joined, as a save would merge them."""
        in_memory = [one for one in segments.segments if one.record is None]
        kept = [one for one in segments.segments if one.record is not None]
        groups = plan(in_memory)
        joined = {number for group in groups for number in group}
        kept += [one for number, one in enumerate(in_memory) if number not in joined]
        for group in groups:
            parts = [in_memory[number].take(in_memory[number].live_rows()) for number in group]
            kept.append(Segment.of(DocumentBatch.join(parts)))
        return SegmentList(tuple(kept))

    def _code_search(self, modality: Modality) -> CodeSearch:
        """Return the search over the codes of one modality."""
        if modality not in self._searches:
            parts = [segment.code_part(modality) for segment in self._segments.segments]
            self._searches[modality] = CodeSearch(parts)
        return self._searches[modality]

    def _ranking(self) -> BM25:
        """Return the full-text ranking of all documents."""
        if self._bm25 is None:
            self._bm25 = BM25([segment.word_part() for segment in self._segments.segments])
        return self._bm25

    def _masks(self, conditions: Sequence[Condition]) -> list[Mask | None]:
        """Return for each segment which documents fulfil all conditions; None without conditions.

        Raises ConfigError for a field that no document has, unless no document has any field.
        """
        if not conditions:
            return [None] * len(self._segments)
        check_fields(self._field_parts(), conditions)
        return [segment.fields.mask(conditions) for segment in self._segments.segments]

    def _field_parts(self) -> list[FieldPart]:
        return [(segment.fields, segment.live) for segment in self._segments.segments]


def _read(folder: Path, state: FileIdentity | None) -> Commit | StoredDocuments:
    """Return what the file of a saved state contains; raises IndexFailure."""
    if state is not None and state[0] == FORMER_FILE:
        from xmodal.index.former_format import read_former  # imports pyarrow

        return read_former(folder / FORMER_FILE)
    return read_commit(folder / FILE)

"""Search and reading of the documents of a list of segments."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from xmodal.codes import BinaryCodes, check_bits
from xmodal.index.bm25 import BM25
from xmodal.index.code_search import CodeSearch, Match
from xmodal.index.contract import WINDOW, Facets, Hit, Hits, WordsHit, WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.filters import Condition, parse
from xmodal.index.origins import Entry, read_origin
from xmodal.index.query_codes import QueryCodes, to_query_codes
from xmodal.index.scan import Mask
from xmodal.index.segments.field_columns import Part as FieldPart
from xmodal.index.segments.field_columns import check_fields, facets
from xmodal.index.segments.segment import Segment
from xmodal.index.segments.segment_list import Places, SegmentList
from xmodal.index.stored_fields import StoredFields
from xmodal.index.validation import check_dim, check_k, check_search, check_target
from xmodal.modality import MODALITIES, Modality

READ_AT_ONCE = 100_000
"""Documents that are read before the next ones."""


class SegmentSearch:
    """The methods of :class:`xmodal.index.contract.Index` that change nothing.

    ``bits``: width of the codes. ``folder``: of the index, in which moved pictures are found; None
    for an index in memory. A subclass changes the documents by ``_set``.
    """

    def __init__(self, bits: int, folder: Path | None) -> None:
        self.bits, self.folder = check_bits(bits), folder
        self._set(SegmentList())

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
        found = self._code_search(target).search(
            queries,
            k,
            radius=self.bits if radius is None else radius,
            window=window,
            masks=self._masks(parse(where)),
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
        masks = self._masks(parse(where))
        pairs = zip(self.segments, masks, strict=True)
        accepted = [segment.with_code(target, mask) for segment, mask in pairs]
        ranking = self._ranking()
        return [ranking.search(query.text, query.excluded, k, accepted) for query in queries]

    def measure(
        self, query: BinaryCodes | QueryCodes, ids: Sequence[str], *, target: Modality
    ) -> dict[str, Hit]:
        """Return the hits that documents would be for one query; see the contract."""
        check_search(query, self.bits, 1, target, None)
        query = to_query_codes(query)
        check_dim(query, self.dim)
        places = self._complete().find(list(dict.fromkeys(ids)))
        rows = [places.rows[places.segments == part] for part in range(len(self.segments))]
        matches = self._code_search(target).measure(query, rows)
        return {hit.id: hit for hit in self._hits(matches)}

    def count(self, target: Modality, where: Mapping[str, Any] | None = None) -> int:
        """Return the number of documents with a code of ``target``; see the contract."""
        masks = self._masks(parse(where))
        pairs = zip(self.segments, masks, strict=True)
        return sum(segment.count(target, mask) for segment, mask in pairs)

    def get(self, ids: Sequence[str]) -> DocumentBatch:
        """Return codes and fields of the ids that exist; see the contract."""
        places = self._complete().find(list(dict.fromkeys(ids)))
        found = places.rows >= 0
        return self._segments.take(Places(*(array[found] for array in places)), self.bits)

    def entries(
        self, *, where: Mapping[str, Any] | None = None, source: str | None = None
    ) -> Iterator[Entry]:
        """Yield documents without codes; see :class:`xmodal.index.origins.ListedIndex`."""
        masks = self._masks(parse(where))
        rows = [one.live_rows(mask) for one, mask in zip(self.segments, masks, strict=True)]
        for one in self._segments.in_order(rows):
            origin = read_origin(one.origin)
            if source is None or (origin is not None and origin.source == source):
                yield Entry(one.id, json.loads(one.fields), origin)

    def facets(self, max_values: int = 20) -> Facets:
        """Return fields by which a search can be narrowed; see the contract."""
        return facets(self._field_parts(), max_values)

    def codes(self, modality: Modality) -> tuple[list[str], BinaryCodes]:
        """Return all codes of ``modality``, in order of id, and the document id of each."""
        batches = list(self.batches(READ_AT_ONCE))
        return DocumentBatch.join([DocumentBatch.empty(self.bits), *batches]).codes(modality)

    def batches(self, size: int = 4096) -> Iterator[DocumentBatch]:
        """Yield all documents in order of id, at most ``size`` per batch."""
        yield from self._complete().batches(size, self.bits)

    def count_codes(self) -> dict[Modality, int]:
        """Return the number of stored codes of each modality."""
        return {m: sum(segment.live_codes(m) for segment in self.segments) for m in MODALITIES}

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Segments of the index, oldest first."""
        return self._complete().segments

    @property
    def dim(self) -> int | None:
        """Dimension of the stored vectors, or None without vectors."""
        return self.segments[0].dim if self.segments else None

    def __len__(self) -> int:
        return self._complete().live_count

    # ---- implementation ------------------------------------------------------------------------

    def _complete(self) -> SegmentList:
        """Return the list of all segments."""
        return self._segments

    def _set(self, segments: SegmentList) -> None:
        """Search other segments; drop data computed from those before."""
        self._segments = segments
        self._bm25: BM25 | None = None
        self._searches: dict[Modality, CodeSearch] = {}

    def _hits(self, matches: Sequence[Match]) -> list[Hit]:
        """Return matches as hits, with the present paths of their pictures."""
        hits: dict[int, Hit] = {}
        by_part: dict[int, list[int]] = defaultdict(list)
        for place, match in enumerate(matches):
            by_part[match.part].append(place)
        for part, places in by_part.items():  # one look-up of texts for each
            segment = self._segments.segments[part]
            rows = [matches[place].row for place in places]
            texts = segment.texts.take(rows)
            origins: Iterable[str | None] = repeat(None)
            if segment.origins is not None:
                origins = segment.origins.take(rows)
            fields = map(StoredFields, texts, origins, repeat(self.folder))
            for place, id_, values in zip(places, segment.ids.take(rows), fields, strict=True):
                _, _, distance, nearest, similarity = matches[place]
                hits[place] = Hit(id_, distance, values, nearest=nearest, similarity=similarity)
        return [hits[place] for place in range(len(matches))]

    def _code_search(self, modality: Modality) -> CodeSearch:
        """Return the search over the codes of one modality."""
        segments = self.segments
        if modality not in self._searches:
            self._searches[modality] = CodeSearch([one.code_part(modality) for one in segments])
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
            return [None] * len(self.segments)
        check_fields(self._field_parts(), conditions)
        return [segment.fields.mask(conditions) for segment in self._segments.segments]

    def _field_parts(self) -> list[FieldPart]:
        return [(segment.fields, segment.live) for segment in self.segments]

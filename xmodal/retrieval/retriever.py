"""Retriever: search end to end, from a text, picture or document to hits with confidence.

The only implementation of "encode the query, search the index, attach a confidence"; used by the
command line, the service, the demo and the benchmarks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexMissing, XmodalError
from xmodal.index.contract import Hit, Hits, Index
from xmodal.modality import MODALITIES, Modality, other_modality

if TYPE_CHECKING:
    from xmodal.data.images import Source
    from xmodal.encoders.encoder import Encoder


@dataclass(frozen=True)
class Query:
    """One query: exactly one of ``text``, ``image``, ``like`` (a document id) and ``code``.

    ``code``: one code or several; the distance of a document is the smallest one over all pairs of
    a code of the query and one of the document. ``like``: searches with all codes of the document.
    ``modality``: of ``code``; required for a confidence. ``target``: modality of the documents'
    codes; default: the other modality, and "image" for ``like``. ``radius``: in bits. ``words``:
    also rank by BM25 of these words in the text field ``text_field``, and fuse both rankings.
    """

    text: str | None = None
    image: Source | None = None
    like: str | None = None
    code: BinaryCodes | None = None
    modality: Modality | None = None
    target: Modality | None = None
    k: int = 10
    where: Mapping[str, Any] | None = None
    radius: int | None = None
    min_confidence: float | None = None
    words: str | None = None
    text_field: str = "text"


@runtime_checkable
class FullTextIndex(Protocol):
    """An index that also ranks documents by BM25 of a text field."""

    def search_fused(
        self,
        queries: BinaryCodes,
        words: Sequence[str],
        k: int,
        *,
        target: Modality,
        text_field: str = "text",
        where: Mapping[str, Any] | None = None,
    ) -> Hits:
        """Return hits of both rankings, fused by reciprocal rank."""


class Retriever:
    """Searches ``index`` with queries that ``encoder`` encodes.

    Without an encoder, queries by ``like`` and by ``code`` work, and no hit has a confidence.
    """

    def __init__(self, encoder: Encoder | None, index: Index) -> None:
        self.encoder, self.index = encoder, index

    def search(
        self,
        *,
        text: str | None = None,
        image: Source | None = None,
        like: str | None = None,
        target: Modality | None = None,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
        min_confidence: float | None = None,
        words: str | None = None,
        text_field: str = "text",
    ) -> list[Hit]:
        """Return the hits of one query, best first; see :class:`Query` for the arguments.

        Raises DataError for an unusable picture or text, IndexMissing for an unknown document,
        ConfigError and CodeError for other invalid arguments.
        """
        query = Query(
            text=text,
            image=image,
            like=like,
            target=target,
            k=k,
            where=where,
            radius=radius,
            min_confidence=min_confidence,
            words=words,
            text_field=text_field,
        )
        (hits,) = self.search_batch([query])
        return hits

    def search_batch(self, queries: Sequence[Query]) -> Hits:
        """Return the hits of each query; raise the first error. See :meth:`search_many`."""
        lists: Hits = []
        for result in self.search_many(queries):
            if isinstance(result, XmodalError):
                raise result
            lists.append(result)
        return lists

    def search_many(self, queries: Sequence[Query]) -> list[list[Hit] | XmodalError]:
        """Return for each query its hits, or the error that prevented them.

        All texts are encoded in one batch, and so are all pictures. Queries that differ only in
        their codes, words or documents are one search of the index; an error of this search is the
        result of each of them.
        """
        results: list[list[Hit] | XmodalError] = [[] for _ in queries]
        ready: dict[int, Query] = {}
        for position, query in enumerate(queries):
            try:
                ready[position] = self._with_target(query)
            except XmodalError as error:
                results[position] = error
        for modality in MODALITIES:
            self._encode(modality, ready, results)
        groups: dict[str, dict[int, Query]] = defaultdict(dict)
        for position, query in ready.items():
            groups[_group_key(query)][position] = query
        for group in groups.values():
            try:
                found = self._search(list(group.values()))
            except XmodalError as error:
                results_by_position: dict[int, list[Hit] | XmodalError] = dict.fromkeys(
                    group, error
                )
            else:
                results_by_position = dict(zip(group, found, strict=True))
            for position, result in results_by_position.items():
                results[position] = result
        return results

    def _with_target(self, query: Query) -> Query:
        """Return the query with its modality and target, and for ``like`` with its codes.

        The codes of a document are those of the target modality, or of the other one if missing.
        """
        sources = [query.text, query.image, query.like, query.code]
        if sum(source is not None for source in sources) != 1:
            raise ConfigError("search by a text, a picture or a document, exactly one of them")
        for name, value in (("target", query.target), ("modality", query.modality)):
            if value is not None and value not in MODALITIES:
                raise ConfigError(f"{name} is {value!r}, expected 'image' or 'text'")
        if query.like is not None:
            return self._with_codes(query, query.like, query.target or "image")
        modality = query.modality
        if query.text is not None or query.image is not None:
            modality = "text" if query.text is not None else "image"
        target = query.target or (None if modality is None else other_modality(modality))
        if target is None:
            raise ConfigError("a query by code needs a target: 'image' or 'text'")
        return replace(query, modality=modality, target=target)

    def _with_codes(self, query: Query, like: str, target: Modality) -> Query:
        """Return the query with the codes of the document ``like``."""
        document = self.index.get([like])
        for modality in (target, other_modality(target)):
            _, codes = document.codes(modality)
            if len(codes):
                return replace(query, modality=modality, code=codes, target=target)
        raise IndexMissing(f"there is no document {like[:100]!r}")

    def _encode(
        self,
        modality: Modality,
        ready: dict[int, Query],
        results: list[list[Hit] | XmodalError],
    ) -> None:
        """Encode the texts or pictures of ``ready``; on an error, move them to ``results``."""
        sources = {
            position: query.text if modality == "text" else query.image
            for position, query in ready.items()
            if query.code is None and query.modality == modality
        }
        if not sources:
            return
        try:
            codes = self._codes(modality, list(sources.values()))
        except XmodalError as error:
            for position, source in sources.items():
                # One source that cannot be used does not affect the other queries.
                try:
                    if len(sources) == 1:
                        raise error
                    code = self._codes(modality, [source])
                    ready[position] = replace(ready[position], code=code)
                except XmodalError as reason:
                    results[position] = reason
                    del ready[position]
            return
        for row, position in enumerate(sources):
            ready[position] = replace(ready[position], code=codes[row : row + 1])

    def _codes(self, modality: Modality, sources: Sequence[Any]) -> BinaryCodes:
        if self.encoder is None:
            raise ConfigError("this retriever has no encoder: search by document or by code")
        return self.encoder.encode(modality, sources).codes

    def _search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Return the hits of queries with one group key."""
        first = queries[0]
        assert first.target is not None
        cross_modal = first.modality is not None and first.modality != first.target
        each = [query.code for query in queries if query.code is not None]
        codes = BinaryCodes.concatenate(each)
        k = first.k + any(query.like is not None for query in queries)  # the document is left out
        if first.words is not None:
            words = [
                str(query.words)
                for query, of_query in zip(queries, each, strict=True)
                for _ in range(len(of_query))
            ]
            lists = self._search_fused(first, codes, words, k)
        else:
            radius = self._radius(first, cross_modal)
            lists = self.index.search(
                codes, k, target=first.target, where=first.where, radius=radius
            )
        remaining = iter(lists)
        return [
            [
                hit._replace(confidence=self._confidence(hit.distance, cross_modal))
                for hit in _best_hits(list(islice(remaining, len(codes_of_query))))
                if hit.id != query.like
            ][: query.k]
            for query, codes_of_query in zip(queries, each, strict=True)
        ]

    def _search_fused(self, first: Query, codes: BinaryCodes, words: Sequence[str], k: int) -> Hits:
        """Return the fused hits of each code and its words; the other options are of ``first``."""
        assert first.target is not None
        if not isinstance(self.index, FullTextIndex):
            raise ConfigError("words need an index in OpenSearch, which has full-text search")
        if first.radius is not None or first.min_confidence is not None:
            raise ConfigError("a search by words has no radius and no minimum confidence")
        return self.index.search_fused(
            codes,
            words,
            k,
            target=first.target,
            text_field=first.text_field,
            where=first.where,
        )

    def _radius(self, query: Query, cross_modal: bool) -> int | None:
        """Return the radius within which hits fulfil both limits, distance and confidence."""
        if self.encoder is None:
            if query.min_confidence is not None:
                raise ConfigError("this retriever has no encoder, so hits have no confidence")
            return query.radius
        return self.encoder.confidence.search_radius(
            query.radius, query.min_confidence, cross_modal=cross_modal
        )

    def _confidence(self, distance: int, cross_modal: bool) -> float | None:
        """Return the confidence of a hit; None within one modality, where none is calibrated."""
        if self.encoder is None or not cross_modal:
            return None
        return round(self.encoder.confidence(distance), 4)


def _best_hits(lists: Hits) -> list[Hit]:
    """Return the hits of all codes of one query in order, each document once, as its best hit.

    Hits are ordered by distance, or by score if they have one, then by id.
    """
    if len(lists) == 1:
        return lists[0]

    def order(hit: Hit) -> tuple[float, str, int]:
        return hit.distance if hit.score is None else -hit.score, hit.id, hit.nearest or 0

    best: dict[str, Hit] = {}
    for hit in sorted(chain.from_iterable(lists), key=order):
        best.setdefault(hit.id, hit)
    return list(best.values())


def _group_key(query: Query) -> str:
    """Return a key that is equal for queries which one search of the index can answer.

    ``repr`` distinguishes 1, 1.0, "1" and True, and accepts every value of ``where``.
    """
    names = ("target", "modality", "k", "where", "radius", "min_confidence", "text_field")
    return repr([*(getattr(query, name) for name in names), query.words is not None])

"""Retriever: search end to end, from a text, picture or document to hits with confidence.

The only implementation of "encode the query, search the index by codes and by words, fuse both,
attach a confidence"; used by the command line, the service, the demo and the benchmarks.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from xmodal.errors import ConfigError, XmodalError
from xmodal.index.contract import (
    WINDOW,
    FullTextIndex,
    Hit,
    Hits,
    Index,
    WordsHit,
    WordsQuery,
)
from xmodal.index.query_codes import QueryCodes
from xmodal.index.words import as_typed, document_words, tokens
from xmodal.modality import Modality
from xmodal.retrieval.encoding import encode_queries
from xmodal.retrieval.fusion import reciprocal_rank
from xmodal.retrieval.query import Query

if TYPE_CHECKING:
    from xmodal.data.images import Source
    from xmodal.encoders.calibration import Stage
    from xmodal.encoders.encoder import Encoder

DEPTH = 100
"""Documents of each ranking, by codes and by words, that are fused and compared for confidence."""
MAX_COUNT = 10_000
"""Largest number of documents of a ranking, unless a query asks for more: of an index in OpenSearch
one request returns no more."""
COUNT_SECONDS = 10.0
"""Seconds for which the number of searched documents is cached."""


class _Encoded(NamedTuple):
    """A query and its codes."""

    query: Query
    codes: QueryCodes


class Retriever:
    """Searches ``index`` with queries that ``encoder`` encodes.

    Without an encoder, queries by ``like`` and by ``code`` work, and no hit has a confidence.
    """

    def __init__(self, encoder: Encoder | None, index: Index) -> None:
        self.encoder, self.index = encoder, index
        self._counts: dict[str, tuple[float, int]] = {}

    def search(
        self,
        *,
        text: str | None = None,
        image: Source | None = None,
        like: str | None = None,
        not_text: Sequence[str] = (),
        target: Modality | None = None,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
        min_confidence: float | None = None,
        **options: Any,
    ) -> list[Hit]:
        """Return the hits of one query, best first.

        See :class:`~xmodal.retrieval.query.Query` for the arguments, ``options`` are the others of
        its fields. Raises DataError for an unusable picture or text, IndexMissing for an unknown
        document, ConfigError and CodeError for other invalid arguments.
        """
        query = Query(
            text=text,
            image=image,
            like=like,
            not_text=tuple(not_text),
            target=target,
            k=k,
            where=where,
            radius=radius,
            min_confidence=min_confidence,
            **options,
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
        what they search for are one search of the index; an error of this search is the result of
        each of them.
        """
        results: list[list[Hit] | XmodalError] = [[] for _ in queries]
        groups: dict[str, dict[int, _Encoded]] = defaultdict(dict)
        encoded = encode_queries(self.encoder, self.index, queries)
        for position, (query, codes) in enumerate(zip(queries, encoded, strict=True)):
            if isinstance(codes, XmodalError):
                results[position] = codes
            else:
                groups[_group_key(query, codes)][position] = _Encoded(query, codes)
        for group in groups.values():
            try:
                found: Sequence[list[Hit] | XmodalError] = self._search(list(group.values()))
            except XmodalError as error:
                found = [error] * len(group)
            for position, result in zip(group, found, strict=True):
                results[position] = result
        return results

    def _search(self, group: Sequence[_Encoded]) -> list[list[Hit]]:
        """Return the hits of queries with one group key."""
        first = group[0].query
        if first.by == "words" and not isinstance(self.index, FullTextIndex):
            raise ConfigError("this index has no full-text search: leave out by='words'")
        self._check_confidence(first)
        depth = first.offset + first.k
        if first.has_words or first.cross_modal:
            depth = max(depth, DEPTH)
        by_words = self._by_words(group, depth if first.by == "words" else DEPTH)
        if depth > DEPTH and by_words[0] is not None:
            # Documents that words rank may be among those by codes.
            depth = max(depth, min(depth + DEPTH, MAX_COUNT))
        by_codes = self._by_codes(group, depth)
        return [
            self._finished(one, hits, words)
            for one, hits, words in zip(group, by_codes, by_words, strict=True)
        ]

    def _by_codes(self, group: Sequence[_Encoded], depth: int) -> Hits:
        """Return the ranking by codes of each query, at most ``depth`` documents."""
        first = group[0].query
        if first.by == "words":
            return [[] for _ in group]
        # The document that a query is like, and documents with excluded words, are left out below.
        spare = any(one.query.like is not None for one in group)
        count = (2 * depth if first.not_text else depth) + spare
        while True:
            lists = self._ranked(group, count)
            kept = [
                [
                    hit
                    for hit in hits
                    if hit.id != one.query.like and not _is_excluded(hit, one.query)
                ][:depth]
                for one, hits in zip(group, lists, strict=True)
            ]
            short = (len(hits) < depth for hits in kept)
            if count >= MAX_COUNT or not any(
                few and len(hits) >= count for few, hits in zip(short, lists, strict=True)
            ):
                return kept
            count = min(2 * count, MAX_COUNT)

    def _ranked(self, group: Sequence[_Encoded], count: int) -> Hits:
        """Return the best ``count`` documents of each query by codes, whatever the query excludes.

        Vectors order the first WINDOW documents, for every ``count``, so that the ranking for a
        smaller ``count`` is the beginning of that for a larger one.
        """
        first = group[0].query
        codes = QueryCodes.concatenate([one.codes for one in group])

        def search(codes: QueryCodes, k: int) -> Hits:
            lists = iter(
                self.index.search(
                    codes, k, target=first.searched, where=first.where, radius=first.radius
                )
            )
            return [_best_hits(list(islice(lists, len(one.codes)))) for one in group]

        if count <= WINDOW or codes.vectors is None or self.index.dim is None:
            return search(codes, count)
        heads = [hits[:WINDOW] for hits in search(codes, WINDOW)]
        by_code = search(QueryCodes(codes.codes, codes.weights), count)
        ranked = []
        for one, head, hits in zip(group, heads, by_code, strict=True):
            keys = {hit.key for hit in head}
            tail = [hit.key for hit in hits if hit.key not in keys]
            known = self._measure(one, [key[0] for key in tail])
            ranked.append(head + [known[key] for key in tail if key in known])
        return ranked

    def _by_words(self, group: Sequence[_Encoded], depth: int) -> list[list[WordsHit] | None]:
        """Return the ranking by words of each query; None for a search by codes alone."""
        first = group[0].query
        if not first.has_words or not isinstance(self.index, FullTextIndex):
            return [None] * len(group)
        queries = [
            WordsQuery(str(one.query.text), " ".join(_excluding_words(one.query))) for one in group
        ]
        return list(
            self.index.search_words(queries, depth, target=first.searched, where=first.where)
        )

    def _finished(
        self, one: _Encoded, by_codes: list[Hit], by_words: list[WordsHit] | None
    ) -> list[Hit]:
        """Return the hits of one query: rankings fused, with confidence, from offset to k."""
        query = one.query
        hits = by_codes if by_words is None else self._fused(one, by_codes, by_words)
        scores = None if by_words is None else {hit.key: hit.score for hit in by_words}
        hits = self._with_confidence(one, hits, scores)
        if query.min_confidence is not None:
            least = query.min_confidence
            hits = [h for h in hits if h.confidence is not None and h.confidence >= least]
        return hits[query.offset : query.offset + query.k]

    def _fused(self, one: _Encoded, by_codes: list[Hit], by_words: list[WordsHit]) -> list[Hit]:
        """Return the documents of both rankings by the sum of their reciprocal ranks.

        The first DEPTH by words are fused with the first DEPTH by codes; further documents follow
        by codes. So the order is the same for every depth of the ranking by codes.
        """
        query = one.query
        known = {hit.key: hit for hit in by_codes}
        matched = {hit.key: as_typed(str(query.text), hit.matched) for hit in by_words}
        known |= self._measured(one, [key[0] for key in matched if key not in known])
        words = [key for key in matched if key in known]
        codes = [hit.key for n, hit in enumerate(by_codes) if n < DEPTH or hit.key not in matched]
        weights = (1.0, query.word_weight)
        return [
            known[rank.id]._replace(
                score=rank.score,
                ranks=dict(zip(("codes", "words"), rank.ranks, strict=True)),
                matched=matched.get(rank.id, ()),
            )
            for rank in reciprocal_rank([codes, words], weights=weights)
        ]

    def _measured(self, one: _Encoded, ids: Sequence[str]) -> dict[tuple[str, str], Hit]:
        """Return hits of documents that only the ranking by words found."""
        query = one.query
        limit = self.index.bits if query.radius is None else query.radius
        return {
            key: hit
            for key, hit in self._measure(one, ids).items()
            if hit.id != query.like and hit.distance <= limit and not _is_excluded(hit, query)
        }

    def _measure(self, one: _Encoded, ids: Sequence[str]) -> dict[tuple[str, str], Hit]:
        """Return the hits that documents are for a query."""
        if not ids:
            return {}
        lists = [
            list(
                self.index.measure(
                    one.codes[row : row + 1], ids, target=one.query.searched
                ).values()
            )
            for row in range(len(one.codes))
        ]
        return {hit.key: hit for hit in _best_hits(lists)}

    # ---- confidence ----------------------------------------------------------------------------

    def _check_confidence(self, query: Query) -> None:
        """Raise ConfigError for a minimum confidence of a query that has none."""
        if query.min_confidence is None:
            return
        if self.encoder is None:
            raise ConfigError("this retriever has no encoder, so hits have no confidence")
        if not query.cross_modal:
            raise ConfigError(
                "confidence is calibrated for a text that searches pictures and for a picture that "
                "searches texts: leave min_confidence out, or limit the distance by radius"
            )

    def _with_confidence(
        self,
        one: _Encoded,
        hits: list[Hit],
        word_scores: Mapping[tuple[str, str], float] | None,
    ) -> list[Hit]:
        """Return the hits with their confidence; None where none is calibrated."""
        query = one.query
        if self.encoder is None or not query.cross_modal or not hits:
            return hits
        of_text = query.searched == "image"
        found = self.encoder.confidence.hits_confidence(
            self._stage(one),
            None if query.by == "words" else [hit.similarity for hit in hits],
            self._documents(query),
            word_scores=None if word_scores is None else [word_scores.get(h.key) for h in hits],
            distances=[hit.distance for hit in hits],
            source="text" if of_text else "image",
            has_known_token=query.text is None or self.encoder.has_known_token(query.text),
        )
        return [hit._replace(confidence=one) for hit, one in zip(hits, found, strict=True)]

    def _stage(self, one: _Encoded) -> Stage:
        """Return the last stage of the ranking by codes, from which the similarities are."""
        if one.codes.vectors is not None and self.index.dim is not None:
            return "vectors"
        return "hamming" if one.codes.weights is None else "weighted"

    def _documents(self, query: Query) -> int:
        """Return the number of documents that a query searches, cached for COUNT_SECONDS."""
        key, now = repr((query.searched, query.where)), time.monotonic()
        counted_at, count = self._counts.get(key, (-COUNT_SECONDS, 0))
        if now - counted_at >= COUNT_SECONDS:
            count = self.index.count(query.searched, query.where)
            self._counts = {key: (now, count)} if len(self._counts) > 1000 else self._counts
            self._counts[key] = now, count
        return count


def _excluding_words(query: Query) -> list[str]:
    """Return the words of which a document of the ranking by words has none."""
    words = [tokens(text) for text in query.not_text]
    return [only[0] for only in words if len(set(only)) == 1]


def _is_excluded(hit: Hit, query: Query) -> bool:
    """Return whether a document has all words of one of the texts that are subtracted."""
    if not query.not_text:
        return False
    words = set(document_words(hit.fields, hit.id))
    return any(set(tokens(text)) <= words for text in query.not_text if tokens(text))


def _best_hits(lists: Hits) -> list[Hit]:
    """Return the hits of all codes of one query in order, each document once, as its best hit.

    Hits are ordered by similarity, then by distance and id.
    """
    if len(lists) == 1:
        return lists[0]

    def order(hit: Hit) -> tuple[float, int, tuple[str, str], int]:
        return -(hit.similarity or 0.0), hit.distance, hit.key, hit.nearest or 0

    best: dict[tuple[str, str], Hit] = {}
    for hit in sorted(chain.from_iterable(lists), key=order):
        best.setdefault(hit.key, hit)
    return list(best.values())


def _group_key(query: Query, codes: QueryCodes) -> str:
    """Return a key that is equal for queries which one search of the index can answer.

    ``repr`` distinguishes 1, 1.0, "1" and True, and accepts every value of ``where``.
    """
    names = ("searched", "k", "offset", "where", "radius", "min_confidence", "by", "has_words")
    kinds = [codes.weights is None, codes.vectors is None, query.not_text != (), query.cross_modal]
    return repr([*(getattr(query, name) for name in names), *kinds])

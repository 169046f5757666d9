"""Retriever: search end to end, from a text, picture or document to hits with confidence.

The only implementation of "encode the query, search the index by codes and by words, fuse both,
attach a confidence"; used by the command line, the service, the demo and the benchmarks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
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
from xmodal.modality import Modality, other_modality
from xmodal.retrieval.encoding import encode_queries
from xmodal.retrieval.hit_confidence import HitConfidence
from xmodal.retrieval.query import Query
from xmodal.retrieval.ranking import DEPTH, Ranking, best_hits, excluding_words, is_hit

if TYPE_CHECKING:
    from xmodal.data.images import Source
    from xmodal.encoders.calibration import Stage
    from xmodal.encoders.encoder import Encoder

MAX_COUNT = 10_000
"""Largest number of documents of a ranking, unless a query asks for more: of an index in OpenSearch
one request returns no more."""


class _Encoded(NamedTuple):
    """A query and its codes."""

    query: Query
    codes: QueryCodes


class Retriever:
    """Searches ``index`` with queries that ``encoder`` encodes.

    Without an encoder, queries by ``like`` and by ``code`` work, and no hit has a confidence.
    ``between_steps``: called between the steps of a search, which may be long, in its thread.

    >>> index = xmodal.open_index("my.index")
    >>> retriever = xmodal.Retriever(xmodal.load_encoder("my.model"), index)
    >>> hits = retriever.search(text="a circle", where={"colour": "red"}, k=2)
    >>> [hit.fields["colour"] for hit in hits]
    ['red', 'red']
    """

    def __init__(
        self,
        encoder: Encoder | None,
        index: Index,
        between_steps: Callable[[], None] = lambda: None,
    ) -> None:
        self.encoder, self.index = encoder, index
        self._between_steps = between_steps
        self._confidence = HitConfidence(encoder)

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
        """Return the hits of queries with one group key.

        The rankings are searched deeper until no query lacks hits because some were left out.
        """
        first = group[0].query
        if first.by == "words" and not isinstance(self.index, FullTextIndex):
            raise ConfigError("this index has no full-text search: leave out by='words'")
        self._confidence.check(first)
        depth = first.offset + first.k
        if first.has_words or first.cross_modal:
            depth = max(depth, DEPTH)
        by_words = self._by_words(group, depth if first.by == "words" else DEPTH)
        if first.by == "both" and depth > DEPTH and by_words[0] is not None:
            # Documents that words rank may be among those by codes.
            depth = max(depth, min(depth + DEPTH, MAX_COUNT))
        depth += any(one.query.like is not None for one in group)  # the document itself is no hit
        while True:
            by_codes: Hits = [[] for _ in group]
            self._between_steps()
            if first.by != "words":
                by_codes = self._ranked(group, depth)
            pages = [
                self._page(one, hits, words, depth)
                for one, hits, words in zip(group, by_codes, by_words, strict=True)
            ]
            complete = [page for page in pages if page is not None]
            if len(complete) == len(pages):
                return complete
            depth = min(2 * depth, MAX_COUNT)
            if first.by == "words":
                by_words = self._by_words(group, depth)

    def _ranked(self, group: Sequence[_Encoded], count: int) -> Hits:
        """Return the best ``count`` documents of each query by codes, whatever the query excludes.

        Vectors order the first WINDOW documents, for every ``count``, so that the ranking for a
        smaller ``count`` is the beginning of that for a larger one. Further documents have no
        similarity yet, which is that of their vectors.
        """
        first = group[0].query
        codes = QueryCodes.concatenate([one.codes for one in group])

        def search(codes: QueryCodes, k: int) -> Hits:
            lists = iter(
                self.index.search(
                    codes, k, target=first.searched, where=first.where, radius=first.radius
                )
            )
            return [best_hits(list(islice(lists, len(one.codes)))) for one in group]

        if count <= WINDOW or codes.vectors is None or self.index.dim is None:
            return search(codes, count)
        heads = [hits[:WINDOW] for hits in search(codes, WINDOW)]
        self._between_steps()
        by_code = search(QueryCodes(codes.codes, codes.weights), count)
        ranked = []
        for head, hits in zip(heads, by_code, strict=True):
            keys = {hit.key for hit in head}
            tail = (hit._replace(similarity=None) for hit in hits if hit.key not in keys)
            ranked.append([*head, *tail])
        return ranked

    def _by_words(self, group: Sequence[_Encoded], depth: int) -> list[list[WordsHit] | None]:
        """Return the ranking by words of each query; None for a search by codes alone."""
        first = group[0].query
        if not first.has_words or not isinstance(self.index, FullTextIndex):
            return [None] * len(group)
        queries = [
            WordsQuery(str(one.query.text), " ".join(excluding_words(one.query))) for one in group
        ]
        return list(
            self.index.search_words(queries, depth, target=first.searched, where=first.where)
        )

    def _page(
        self, one: _Encoded, ranked: list[Hit], by_words: list[WordsHit] | None, depth: int
    ) -> list[Hit] | None:
        """Return the hits of one query from offset to k; None if deeper rankings are needed.

        ``ranked``: the first ``depth`` documents by codes; ``by_words``: those by words.
        """
        query = one.query
        self._between_steps()
        by_codes = [hit for hit in ranked if is_hit(hit, query)]
        ended = len(by_words or () if query.by == "words" else ranked) < depth
        if by_words is None:
            ranking = Ranking.by_codes(query, by_codes, ended)
        else:
            matched = {hit.key: hit for hit in by_words}
            found = {hit.key for hit in by_codes}
            others = self._measured(one, [key[0] for key in matched if key not in found])
            ranking = Ranking.fuse(query, by_codes, others, matched, ended)
        end = query.offset + query.k
        shown = slice(query.offset, end) if query.min_confidence is None else slice(None)
        ranking = self._with_similarities(one, ranking, shown)
        confidence = self._confidence.of(ranking, self._stage(one), self.index)
        ranking = ranking._replace(confidence=confidence)
        sorted_to_end = query.by == "words" or self._stage(one) != "vectors"
        kept, all_kept = ranking.kept(None if sorted_to_end else WINDOW)
        final = sum(place < ranking.final for place in kept)
        if final < end and not (ended or all_kept or depth >= MAX_COUNT):
            return None
        return ranking.page(kept[query.offset : end])

    def _with_similarities(self, one: _Encoded, ranking: Ranking, shown: slice) -> Ranking:
        """Return a ranking in which hits have the similarities of their vectors.

        These are the hits of a slice, and those with which the confidence of others competes.
        """
        places = sorted({*range(len(ranking.hits))[shown], *ranking.split(WINDOW)[0]})
        ids = [ranking.hits[n].id for n in places if ranking.hits[n].similarity is None]
        if not ids:
            return ranking
        self._between_steps()
        known = self._measure(one, ids)
        return ranking._replace(hits=[known.get(hit.key, hit) for hit in ranking.hits])

    def _measured(self, one: _Encoded, ids: Sequence[str]) -> dict[tuple[str, str], Hit]:
        """Return hits of documents that only the ranking by words found."""
        query = one.query
        limit = self.index.bits if query.radius is None else query.radius
        return {
            key: hit
            for key, hit in self._measure(one, ids).items()
            if hit.distance <= limit and is_hit(hit, query)
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
        return {hit.key: hit for hit in best_hits(lists)}

    def _stage(self, one: _Encoded) -> Stage:
        """Return the last stage of the ranking by codes, from which the similarities are."""
        if one.codes.vectors is not None and self.index.dim is not None:
            return "vectors"
        return "hamming" if one.codes.weights is None else "weighted"


def search_present(retriever: Retriever, query: Query) -> tuple[Query, list[Hit]]:
    """Return the hits of a query, and the query with the target that was searched.

    Without ``target``, an index that has codes of the other modality only is searched by these.
    Raises the errors of :meth:`Retriever.search`.
    """
    (hits,) = retriever.search_batch([query])
    index = retriever.index
    if hits or query.target is not None or index.count(query.searched):
        return query, hits
    other = other_modality(query.searched)
    if not index.count(other):
        return query, hits
    query = replace(query, target=other)
    (hits,) = retriever.search_batch([query])
    return query, hits


def _group_key(query: Query, codes: QueryCodes) -> str:
    """Return a key that is equal for queries which one search of the index can answer.

    ``repr`` distinguishes 1, 1.0, "1" and True, and accepts every value of ``where``.
    """
    names = ("searched", "k", "offset", "where", "radius", "min_confidence", "by", "has_words")
    kinds = [codes.weights is None, codes.vectors is None, query.not_text != (), query.cross_modal]
    return repr([*(getattr(query, name) for name in names), *kinds])

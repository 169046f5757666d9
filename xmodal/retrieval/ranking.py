"""Rankings of one query: fusion of those by codes and by words, and what is left out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, compress
from operator import not_
from typing import NamedTuple

from xmodal.index.contract import Hit, Hits, WordsHit
from xmodal.index.words import as_typed, document_words, tokens
from xmodal.retrieval.fusion import RRF_CONSTANT, FusedRank, reciprocal_rank
from xmodal.retrieval.query import Query

DEPTH = 100
"""Documents of each ranking, by codes and by words, that are fused and compared for confidence."""

Key = tuple[str, str]


class Ranking(NamedTuple):
    """The hits of one query, best first; score, ranks and confidence are beside them.

    ``ended``: whether no further documents can be found. ``final``: number of the first hits whose
    order further documents cannot change. ``fused``: ranks of a fused search, in the order of the
    hits, and ``matched``: the words that were found, else None. ``alone``: place in its ranking of
    each hit that one ranking found, with a confidence that falls along it, else None.
    """

    query: Query
    hits: Sequence[Hit]
    ended: bool
    final: int
    alone: Sequence[int | None]
    fused: Sequence[FusedRank[Key]] | None = None
    matched: Mapping[Key, WordsHit] | None = None
    confidence: Sequence[float | None] = ()

    @classmethod
    def by_codes(cls, query: Query, hits: Sequence[Hit], ended: bool) -> Ranking:
        """Return the ranking of a search by codes alone."""
        return cls(query, hits, ended, len(hits), range(len(hits)))

    @classmethod
    def fuse(
        cls,
        query: Query,
        by_codes: Sequence[Hit],
        others: Mapping[Key, Hit],
        matched: Mapping[Key, WordsHit],
        ended: bool,
    ) -> Ranking:
        """Return the documents of both rankings by the sum of their reciprocal ranks.

        ``matched``: the documents by words, best first; ``others``: those of them that are not
        among ``by_codes``, and may be found. The first DEPTH by words are fused with the first
        DEPTH by codes; further documents follow by codes. So the order is the same for every depth
        of the ranking by codes.
        """
        hits = {**{hit.key: hit for hit in by_codes}, **others}
        words = [key for key in matched if key in hits]
        codes = [hit.key for n, hit in enumerate(by_codes) if n < DEPTH or hit.key not in matched]
        fused = reciprocal_rank([codes, words], weights=(1.0, query.word_weight))
        next_score = 1 / (RRF_CONSTANT + len(codes) + 1)  # of the next document by codes
        final = len(fused)
        if query.by != "words":
            # The next ones may be among the first DEPTH, if documents were left out of these.
            final = sum(r.score > next_score for r in fused) if len(by_codes) >= DEPTH else 0
            place = {hit.key: n for n, hit in enumerate(by_codes) if hit.key not in matched}
        else:
            place = {key: n for n, key in enumerate(words)}
        return cls(
            query,
            [hits[rank.id] for rank in fused],
            ended,
            final,
            [place.get(rank.id) for rank in fused],
            fused,
            matched,
        )

    def split(self, window: int | None) -> tuple[list[int], list[int]]:
        """Return the places of the first ``window`` hits of their ranking, and of the others.

        Documents that both rankings found are among the first. None: all are.
        """
        places = range(len(self.hits))
        if window is None:
            return list(places), []
        inside = [alone is None or alone < window for alone in self.alone]
        return list(compress(places, inside)), list(compress(places, map(not_, inside)))

    def kept(self, window: int | None) -> tuple[list[int], bool]:
        """Return the places of the hits with the minimum confidence, and whether they are all.

        The confidence falls along a ranking, but after ``window`` documents only roughly. So the
        first document of a ranking below the minimum ends it, if it is among these.
        """
        least = self.query.min_confidence
        if least is None:
            return list(range(len(self.hits))), False
        passing = [one is not None and one >= least for one in self.confidence]
        first, others = self.split(window)
        if any(not passing[n] and self.alone[n] is not None for n in first):
            return [n for n in first if passing[n]], True
        return [n for n in sorted(first + others) if passing[n]], False

    def page(self, places: Sequence[int]) -> list[Hit]:
        """Return the hits at ``places`` with score, ranks, matched words and confidence."""
        page = []
        for place in places:
            hit = self.hits[place]._replace(confidence=self.confidence[place])
            if self.fused is not None and self.matched is not None:
                rank, words = self.fused[place], self.matched.get(hit.key)
                hit = hit._replace(
                    score=rank.score,
                    ranks=dict(zip(("codes", "words"), rank.ranks, strict=True)),
                    matched=() if words is None else as_typed(str(self.query.text), words.matched),
                )
            page.append(hit)
        return page


def best_hits(lists: Hits) -> list[Hit]:
    """Return the hits of all codes of one query in order, each document once, as its best hit.

    Hits are ordered by similarity, then by distance and id.
    """
    if len(lists) == 1:
        return lists[0]

    def order(hit: Hit) -> tuple[float, int, Key, int]:
        return -(hit.similarity or 0.0), hit.distance, hit.key, hit.nearest or 0

    best: dict[Key, Hit] = {}
    for hit in sorted(chain.from_iterable(lists), key=order):
        best.setdefault(hit.key, hit)
    return list(best.values())


def excluding_words(query: Query) -> list[str]:
    """Return the words of which a document of the ranking by words has none."""
    return [next(iter(words)) for words in map(_word_set, query.not_text) if len(words) == 1]


def is_hit(hit: Hit, query: Query) -> bool:
    """Return whether a document is not left out by ``like`` or ``not_text`` of a query.

    The document that a query is like is no hit, nor is one that has all words of one of the texts
    that are subtracted.
    """
    if hit.id == query.like:
        return False
    if not query.not_text:
        return True
    words = set(document_words(hit.fields, hit.id))
    return not any(excluded and excluded <= words for excluded in map(_word_set, query.not_text))


@lru_cache(256)
def _word_set(text: str) -> frozenset[str]:
    """Return the words of a text that is subtracted; it is compared with each document."""
    return frozenset(tokens(text))

"""OpenSearchIndex: the Index contract, and beside it what only a server can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexMissing, ServerFailure
from xmodal.index.contract import Hit, Hits
from xmodal.index.validation import check_search
from xmodal.modality import Modality
from xmodal.retrieval.fusion import CONSTANT, reciprocal_rank
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import queries as build
from xmodal_opensearch.index.aliases import describe, make_version
from xmodal_opensearch.index.capabilities import probe
from xmodal_opensearch.index.mapping import ID, field_of
from xmodal_opensearch.index.queries import MOST_HITS, Query
from xmodal_opensearch.index.reading import ReadableIndex
from xmodal_opensearch.index.strategies import choose_way

SAMPLE = 32
"""How many stored codes are asked to measure recall."""


class Recall(NamedTuple):
    """Share of the true nearest that a graph finds: ``queries`` stored codes asked for ``k``.

    Any document as near as the true k-th counts: among ties none is truer than another.
    """

    value: float
    k: int
    queries: int


class Approximate(NamedTuple):
    """What a graph found, and how much of the truth it finds on this very index."""

    hits: Hits
    recall: Recall


class FusedHit(NamedTuple):
    """A hit of both lists together; ``distance`` is None for a document without that code.

    The ranks, from 1, are None where a list does not have it (or the server did not say).
    """

    id: str
    distance: int | None
    fields: Mapping[str, Any]
    score: float
    code_rank: int | None
    text_rank: int | None


class Explanation(NamedTuple):
    """Why a document stands where it stands.

    ``differing`` are the bits (from 0, the first bit of the code) in which it and the query differ.
    ``text_rank`` is None without words, or beyond the first 10,000.
    """

    id: str
    distance: int
    bits: int
    differing: tuple[int, ...]
    code_rank: int
    text_rank: int | None
    confidence: float | None

    @property
    def agreeing(self) -> int:
        """In how many bits both agree."""
        return self.bits - self.distance


def open_opensearch(
    uri: str,
    *,
    bits: int | None = None,
    encoder: str | None = None,
    create: bool = False,
) -> OpenSearchIndex:
    """Open the index at ``opensearch://host:9200/name`` (see address.py), or make it there.

    Raises IndexMissing, IndexMismatch, ServerFailure, ConfigError.
    """
    address = parse_address(uri)
    server = Server(address)
    try:
        found = describe(server, address.index)
        if found is None:
            if not create:
                raise IndexMissing(
                    f"no index {address.index} at {address.server}: make one with "
                    f"xmodal index DATA --index {uri}"
                )
            if bits is None:
                raise ConfigError(f"to make a new index at {uri}, say how many bits its codes have")
            way = choose_way(address.way, probe(server), None, address.natives)
            try:
                make_version(server, address, bits, encoder, way.makes, alias=address.index)
            except ServerFailure:
                if describe(server, address.index) is None:
                    raise
                # Somebody else made it at the same moment: that one is opened.
        return OpenSearchIndex(server, address, bits=bits, encoder=encoder)
    except BaseException:
        server.close()
        raise


class OpenSearchIndex(ReadableIndex):
    """Codes in OpenSearch: its parents keep the contract, here is what goes beyond it."""

    _recalls: Mapping[tuple[Modality, int, int], Recall] = MappingProxyType({})

    def search_approximate(
        self,
        queries: BinaryCodes,
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
    ) -> Approximate:
        """What the graph finds for each query: fast, and not all of the truth.

        Recall is measured once for a target and k, and again after this handle changed documents.
        Raises ConfigError if the index has no graph (way=lucene-hnsw or faiss-hnsw makes one).
        """
        check_search(queries, self.bits, k, target, None)
        filters = self.filters(where)
        self.refresh()
        hits = self._by_graph(_rows(queries), k, target, filters)
        key = target, k, self.changes
        if key not in self._recalls:
            self._recalls = {key: self.measure_recall(k, target=target)}
        return Approximate(hits, self._recalls[key])

    def measure_recall(self, k: int, *, target: Modality, sample: int = SAMPLE) -> Recall:
        """How much of the exact answer the graph finds, asked with codes of this index itself."""
        _, asked = self.sample("text" if target == "image" else "image", sample)
        if len(asked) == 0:
            _, asked = self.sample(target, sample)
        if len(asked) == 0:
            return Recall(1.0, k, 0)
        exact = self.search(asked, k, target=target)
        found = self._by_graph(_rows(asked), k, target, self.filters(None))
        shares = [
            sum(hit.distance <= best[-1].distance for hit in got) / len(best)
            for best, got in zip(exact, found, strict=True)
            if best
        ]
        return Recall(float(np.mean(shares)) if shares else 1.0, k, len(asked))

    def search_fused(
        self,
        queries: BinaryCodes,
        words: Sequence[str],
        k: int,
        *,
        target: Modality,
        text: str = "text",
        where: Mapping[str, Any] | None = None,
        depth: int = 100,
        constant: int = CONSTANT,
        on_server: bool = False,
    ) -> list[list[FusedHit]]:
        """Codes and BM25 over the field ``text``, fused by reciprocal rank; one list a query.

        ``depth`` documents of each list take part. With ``on_server`` the server's own hybrid
        query does it (needs neural-search; its ranks are not told, ties fall as they like).
        """
        check_search(queries, self.bits, k, target, None)
        if len(words) != len(queries):
            raise ConfigError(f"{len(words)} texts for {len(queries)} codes, expected one a code")
        depth = min(max(depth, k), MOST_HITS)
        filters = self.filters(where)
        self.refresh()
        field = build.text_field(text, self.read_types())
        # A document without a code on that side is never a hit, whatever its words.
        present = [self.layout.present(field_of(target)), *filters]
        spoken = [build.words_query(field, one, present) for one in words]
        if on_server:
            return self._fused_by_server(queries, spoken, k, target, filters, constant, depth)
        by_code = self.search(queries, depth, target=target, where=where)
        by_words = self.ask([build.search_body(query, depth) for query in spoken])
        out = []
        for row, (near, answer) in enumerate(zip(by_code, by_words, strict=True)):
            told = {one["_id"]: one.get("_source", {}) for one in answer["hits"]["hits"]}
            best = reciprocal_rank([[hit.id for hit in near], list(told)], constant)[:k]
            fields = told | {hit.id: hit.fields for hit in near}
            distances = {hit.id: hit.distance for hit in near}
            distances |= self._distances(
                queries[row : row + 1], [one.id for one in best if one.id not in distances], target
            )
            out.append(
                [
                    FusedHit(one.id, distances.get(one.id), fields[one.id], one.score, *one.ranks)
                    for one in best
                ]
            )
        return out

    def more_like(
        self,
        id_: str,
        k: int,
        *,
        target: Modality = "image",
        side: Modality | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """The documents nearest to a stored one, by its code on ``side`` (default: ``target``).

        The document itself is left out. Raises IndexMissing if it is not there or has no such code.
        """
        side = side or target
        ids, code = self.codes_of([id_], side)
        if not ids:
            raise IndexMissing(f"{self.address} has no document {id_!r} with a code for its {side}")
        found = self.search(code, k + 1, target=target, where=where)[0]
        return [hit for hit in found if hit.id != id_][:k]

    def explain(
        self,
        id_: str,
        query: BinaryCodes,
        *,
        target: Modality,
        words: str | None = None,
        text: str = "text",
        where: Mapping[str, Any] | None = None,
        confidence: Callable[[int], float] | None = None,
    ) -> Explanation:
        """Why a document stands where it stands for one query; ``confidence`` is the encoder's.

        Raises IndexMissing if it is not there or has no code on that side.
        """
        check_search(query, self.bits, 1, target, None)
        ids, code = self.codes_of([id_], target)
        if not ids:
            raise IndexMissing(
                f"{self.address} has no document {id_!r} with a code for its {target}"
            )
        distance = int(query.distances(code)[0, 0])
        differing = np.flatnonzero(query.to_bits()[0] != code.to_bits()[0])
        filters = self.filters(where)
        self.refresh()
        before = {"range": {ID: {"lt": id_}}}
        nearer = self._count_within(query, target, filters, distance - 1)
        as_near_before = self._count_within(query, target, [*filters, before], distance)
        as_near_before -= self._count_within(query, target, [*filters, before], distance - 1)
        text_rank = None
        if words is not None:
            field = build.text_field(text, self.read_types())
            present = [self.layout.present(field_of(target)), *filters]
            body = build.search_body(build.words_query(field, words, present), MOST_HITS)
            (answer,) = self.ask([body | {"_source": False}])
            ranked = [one["_id"] for one in answer["hits"]["hits"]]
            text_rank = ranked.index(id_) + 1 if id_ in ranked else None
        return Explanation(
            id_,
            distance,
            self.bits,
            tuple(int(bit) for bit in differing),
            nearer + as_near_before + 1,
            text_rank,
            None if confidence is None else confidence(distance),
        )

    # ---- how it works -------------------------------------------------------------------------

    def _by_graph(
        self, rows: Sequence[BinaryCodes], k: int, target: Modality, filters: Sequence[Query]
    ) -> Hits:
        if not self.layout.has_graph:
            raise ConfigError(
                f"{self.address} has no graph to ask (its way is {self.way.name}): load it into a "
                "new index with way=lucene-hnsw, or use search, which is exact"
            )
        if k > MOST_HITS:
            raise ConfigError(f"k is {k}, expected at most {MOST_HITS:,} of a graph")
        asked = [build.by_knn(field_of(target), row, filters, k) for row in rows]
        return [self.hits(answer) for answer in self.ask([build.search_body(q, k) for q in asked])]

    def _fused_by_server(
        self,
        queries: BinaryCodes,
        spoken: Sequence[Query],
        k: int,
        target: Modality,
        filters: Sequence[Query],
        constant: int,
        depth: int,
    ) -> list[list[FusedHit]]:
        if not self.can.hybrid:
            raise ConfigError(
                f"{self.address.server} has no neural-search plugin, which fuses on the server: "
                "leave on_server out, the client fuses as well"
            )
        bodies = [
            build.hybrid_body(
                self.exact_query(code, target, filters), words, k, constant=constant, depth=depth
            )
            for code, words in zip(_rows(queries), spoken, strict=True)
        ]
        out = []
        for code, answer in zip(_rows(queries), self.ask(bodies), strict=True):
            found = answer["hits"]["hits"]
            distances = self._distances(code, [one["_id"] for one in found], target)
            out.append(
                [
                    FusedHit(
                        one["_id"],
                        distances.get(one["_id"]),
                        one.get("_source", {}),
                        one["_score"],
                        None,
                        None,
                    )
                    for one in found
                ]
            )
        return out

    def _distances(
        self, query: BinaryCodes, ids: Sequence[str], target: Modality
    ) -> dict[str, int]:
        found, codes = self.codes_of(ids, target)
        return dict(zip(found, map(int, query.distances(codes)[0]), strict=True))

    def _count_within(
        self, query: BinaryCodes, target: Modality, filters: Sequence[Query], radius: int
    ) -> int:
        """How many documents lie within a radius."""
        if radius < 0:
            return 0
        if self.way.build is None:
            (hits,) = self.nearest([query], MOST_HITS - 1, target, filters, radius)
            return len(hits)
        body = build.search_body(self.exact_query(query, target, filters, radius), 0)
        (answer,) = self.ask([body | {"track_total_hits": True}])
        return int(answer["hits"]["total"]["value"])


def _rows(codes: BinaryCodes) -> list[BinaryCodes]:
    """The codes one by one."""
    return [codes[row : row + 1] for row in range(len(codes))]

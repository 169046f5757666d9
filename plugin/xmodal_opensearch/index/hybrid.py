"""Fused search: rankings by code and by BM25, fused by reciprocal rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.contract import Hit, Hits
from xmodal.index.validation import check_search
from xmodal.modality import Modality
from xmodal.retrieval.fusion import RRF_CONSTANT, reciprocal_rank
from xmodal_opensearch.index import queries
from xmodal_opensearch.index.exact_search import exact_query, search_exact, split_rows
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.queries import MAX_HITS, Query
from xmodal_opensearch.index.reading import read_nearest


def search_fused(
    handle: IndexHandle,
    codes: BinaryCodes,
    words: Sequence[str],
    k: int,
    *,
    target: Modality,
    text_field: str = "text",
    where: Mapping[str, Any] | None = None,
    depth: int = 100,
    constant: int = RRF_CONSTANT,
    on_server: bool = False,
) -> Hits:
    """Fuse the ranking by code with the ranking by BM25 of ``words`` in ``text_field``.

    ``words``: one text per code. ``depth``: number of documents of each ranking that are fused.
    ``constant``: of the reciprocal rank. ``on_server``: fuse by the hybrid query of the plugin
    neural-search, which returns no ranks and does not apply the tie rule. Raises ConfigError
    for a field that has no BM25, or if the plugin is missing.
    """
    check_search(codes, handle.bits, k, target, None)
    if len(words) != len(codes):
        raise ConfigError(f"{len(words)} texts for {len(codes)} codes, expected one per code")
    depth = min(max(depth, k), MAX_HITS)
    filters = handle.filters(where)
    handle.refresh()
    field = queries.text_field(text_field, handle.read_types())
    # A document without a code of the target is never a hit, even if its words match.
    present = [
        queries.present(target, handle.layout, nested=handle.queries_nested(target)),
        *filters,
    ]
    by_words = [queries.words_query(field, text, present) for text in words]
    if on_server:
        return _fused_by_server(handle, codes, by_words, k, target, filters, constant, depth)
    by_code = search_exact(handle, codes, depth, target=target, where=where)
    answers = handle.search([queries.search_body(query, depth) for query in by_words])
    return [
        _fuse(handle, code, hits, answer, k, target, constant)
        for code, hits, answer in zip(split_rows(codes), by_code, answers, strict=True)
    ]


def _fuse(
    handle: IndexHandle,
    code: BinaryCodes,
    by_code: list[Hit],
    answer: Mapping[str, Any],
    k: int,
    target: Modality,
    constant: int,
) -> list[Hit]:
    """Return the best ``k`` of the hits by code and of an answer by words."""
    fields = {hit["_id"]: hit.get("_source", {}) for hit in answer["hits"]["hits"]}
    best = reciprocal_rank([[hit.id for hit in by_code], list(fields)], constant)[:k]
    fields |= {hit.id: hit.fields for hit in by_code}
    nearest = {hit.id: (hit.distance, hit.nearest) for hit in by_code}
    missing = [document.id for document in best if document.id not in nearest]
    nearest |= read_nearest(handle, code, missing, target)
    return [
        Hit(
            document.id,
            nearest[document.id][0],
            fields[document.id],
            score=document.score,
            ranks=dict(zip(("codes", "words"), document.ranks, strict=True)),
            nearest=nearest[document.id][1],
        )
        for document in best
        if document.id in nearest  # a document removed between the two requests is no hit
    ]


def _fused_by_server(
    handle: IndexHandle,
    codes: BinaryCodes,
    by_words: Sequence[Query],
    k: int,
    target: Modality,
    filters: Sequence[Query],
    constant: int,
    depth: int,
) -> Hits:
    """Return the hits of the server's hybrid queries."""
    if not handle.capabilities.hybrid:
        raise ConfigError(
            f"{handle.address.server} has no neural-search plugin, which on_server needs: "
            "leave on_server out to fuse in the client"
        )
    rows = split_rows(codes)
    bodies = [
        queries.hybrid_body(
            exact_query(handle, code, target, filters), words, k, constant=constant, depth=depth
        )
        for code, words in zip(rows, by_words, strict=True)
    ]
    fused = []
    for code, answer in zip(rows, handle.search(bodies), strict=True):
        hits = answer["hits"]["hits"]
        nearest = read_nearest(handle, code, [hit["_id"] for hit in hits], target)
        fused.append(
            [
                Hit(
                    hit["_id"],
                    nearest[hit["_id"]][0],
                    hit.get("_source", {}),
                    score=hit["_score"],
                    nearest=nearest[hit["_id"]][1],
                )
                for hit in hits
                if hit["_id"] in nearest
            ]
        )
    return fused

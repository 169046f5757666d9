"""Fused search: codes and BM25 together, by reciprocal rank."""

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
from xmodal_opensearch.index.mapping import field_of
from xmodal_opensearch.index.queries import MAX_HITS, Query
from xmodal_opensearch.index.reading import read_batch


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

    ``depth`` documents of each ranking take part. With ``on_server`` the hybrid query of the plugin
    neural-search fuses; it reports no ranks and does not apply the tie rule.
    """
    check_search(codes, handle.bits, k, target, None)
    if len(words) != len(codes):
        raise ConfigError(f"{len(words)} texts for {len(codes)} codes, expected one a code")
    depth = min(max(depth, k), MAX_HITS)
    filters = handle.filters(where)
    handle.refresh()
    field = queries.text_field(text_field, handle.read_types())
    # A document without a code of the target is never a hit, whatever its words.
    present = [handle.layout.present(field_of(target)), *filters]
    by_words = [queries.words_query(field, one, present) for one in words]
    if on_server:
        return _fused_by_server(handle, codes, by_words, k, target, filters, constant, depth)
    near = search_exact(handle, codes, depth, target=target, where=where)
    answers = handle.search([queries.search_body(query, depth) for query in by_words])
    return [
        _fuse(handle, code, hits, answer, k, target, constant)
        for code, hits, answer in zip(split_rows(codes), near, answers, strict=True)
    ]


def _fuse(
    handle: IndexHandle,
    code: BinaryCodes,
    near: list[Hit],
    answer: Mapping[str, Any],
    k: int,
    target: Modality,
    constant: int,
) -> list[Hit]:
    """Fuse the hits by code with an answer by words."""
    fields = {one["_id"]: one.get("_source", {}) for one in answer["hits"]["hits"]}
    best = reciprocal_rank([[hit.id for hit in near], list(fields)], constant)[:k]
    fields |= {hit.id: hit.fields for hit in near}
    distances = {hit.id: hit.distance for hit in near}
    missing = [one.id for one in best if one.id not in distances]
    distances |= _distances(handle, code, missing, target)
    return [
        Hit(
            one.id,
            distances[one.id],
            fields[one.id],
            score=one.score,
            ranks=dict(zip(("codes", "words"), one.ranks, strict=True)),
        )
        for one in best
        if one.id in distances  # a document removed between the two requests is no hit
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
    if not handle.capabilities.hybrid:
        raise ConfigError(
            f"{handle.address.server} has no neural-search plugin, which fuses on the server: "
            "leave on_server out, the client fuses as well"
        )
    rows = split_rows(codes)
    bodies = [
        queries.hybrid_body(
            exact_query(handle, code, target, filters), words, k, constant=constant, depth=depth
        )
        for code, words in zip(rows, by_words, strict=True)
    ]
    out = []
    for code, answer in zip(rows, handle.search(bodies), strict=True):
        found = answer["hits"]["hits"]
        distances = _distances(handle, code, [one["_id"] for one in found], target)
        out.append(
            [
                Hit(one["_id"], distances[one["_id"]], one.get("_source", {}), score=one["_score"])
                for one in found
                if one["_id"] in distances
            ]
        )
    return out


def _distances(
    handle: IndexHandle, code: BinaryCodes, ids: Sequence[str], target: Modality
) -> dict[str, int]:
    """Distances of the stored codes of some documents."""
    found, stored = read_batch(handle, ids).codes(target)
    return dict(zip(found, map(int, code.distances(stored)[0]), strict=True))

"""Search with weights and vectors: two stages, on the server where it can compute them.

    on the server                       first stage                     second stage
    hamming plugin, one shard           weights                         in the same request
    hamming plugin, several shards, or  weights                         second request, by ids
    document-level security
    k-NN with scripts                   Hamming, window x 4             second request, in Painless
    vectors as ``binary``, or no script Hamming, window x 4             in the client
    layout long                         weights, in Painless            in the client

Where the server has no weights, the documents of a larger window by Hamming distance are ordered
again: by vectors, or without vectors by weights in the client. The window is of the whole index on
any number of shards. The client computes distance, place and similarity of the hits exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.contract import WINDOW, Hit, Hits
from xmodal.index.query_codes import QueryCodes, to_query_codes
from xmodal.index.validation import check_dim, check_search
from xmodal.modality import Modality
from xmodal_opensearch.index import codec, queries
from xmodal_opensearch.index.comparison import best_hits, read_stored, source_fields
from xmodal_opensearch.index.exact_search import (
    exact_query,
    first_stage,
    search_exact,
    split_rows,
)
from xmodal_opensearch.index.handle import HAMMING_WINDOW_FACTOR, IndexHandle
from xmodal_opensearch.index.mapping import field_of, nested_path, vector_field
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.index.ranked import HitsHidden, RawHit, first_with_ties
from xmodal_opensearch.index.reading import read_fields

TOLERANCE = 1e-5
"""Largest difference of two scores of the second stage that float32 may have reversed."""


def search(
    handle: IndexHandle,
    given: BinaryCodes | QueryCodes,
    k: int,
    *,
    target: Modality,
    where: Mapping[str, Any] | None = None,
    radius: int | None = None,
    window: int = WINDOW,
) -> Hits:
    """Return the best ``k`` documents for each query; see the contract of an index."""
    query = to_query_codes(given)
    check_search(query.codes, handle.bits, k, target, radius)
    if window < 1:
        raise ConfigError(f"window is {window}, expected at least 1 document")
    query = with_usable_vectors(handle, query)
    if query.vectors is None and (query.weights is None or handle.weighs):
        return search_exact(handle, query, k, target=target, where=where, radius=radius)
    filters = handle.filters(where)
    handle.refresh()
    rows = split_rows(query)
    if query.vectors is not None and handle.compares_vectors:
        found = _by_server(handle, rows, k, target, filters, radius, max(window, k))
    else:
        found = _by_client(handle, rows, k, target, filters, radius, max(window, k))
    return found


def with_usable_vectors(handle: IndexHandle, query: QueryCodes) -> QueryCodes:
    """Return the queries without vectors if the index has none; CodeError for another dimension."""
    check_dim(query, handle.dim)
    return QueryCodes(query.codes, query.weights) if handle.dim is None else query


def _first_stage(
    handle: IndexHandle, rows: Sequence[QueryCodes], window: int
) -> tuple[list[QueryCodes], int]:
    """Return the queries of the first stage that the server can compute, and its window."""
    if handle.weighs or all(row.weights is None for row in rows):
        return list(rows), window
    return [QueryCodes(row.codes) for row in rows], HAMMING_WINDOW_FACTOR * window


def _by_server(
    handle: IndexHandle,
    rows: Sequence[QueryCodes],
    k: int,
    target: Modality,
    filters: Sequence[Query],
    radius: int | None,
    window: int,
) -> Hits:
    """Return the hits whose vectors the server compares."""
    firsts, size = _first_stage(handle, rows, window)
    seconds = [
        queries.by_all_vectors(handle.build_vector, target, row.vectors[0])
        for row in rows
        if row.vectors is not None
    ]
    source = queries.user_source([field_of(target), nested_path(target), vector_field(target)])

    def in_one_request() -> list[list[RawHit]]:
        both = [
            queries.two_stage(exact_query(handle, first, target, filters, radius), second, size)
            for first, second in zip(firsts, seconds, strict=True)
        ]
        search = partial(queries.search_body, source=source, scale=codec.SMALL_SCALE)
        bodies = [partial(search, query) for query in both]
        return first_with_ties(handle, bodies, k, tolerance=TOLERANCE, selects=True)

    def in_two_requests() -> list[list[RawHit]]:
        windows = first_stage(handle, firsts, size, target, filters, radius)
        both = [queries.among(second, hits) for second, hits in zip(seconds, windows, strict=True)]
        bodies = [partial(queries.search_body, query, source=source) for query in both]
        return first_with_ties(handle, bodies, k, tolerance=TOLERANCE)

    found: list[list[RawHit]] | None = None
    if handle.has_two_stage and handle.shards == 1 and not handle.is_restricted:
        try:
            found = in_one_request()
        except HitsHidden:
            handle.is_restricted = True
    found = in_two_requests() if found is None else found
    return [
        _best(handle, hits, row, target, k, radius) for row, hits in zip(rows, found, strict=True)
    ]


def _by_client(
    handle: IndexHandle,
    rows: Sequence[QueryCodes],
    k: int,
    target: Modality,
    filters: Sequence[Query],
    radius: int | None,
    window: int,
) -> Hits:
    """Return the hits of a first stage whose documents the client orders again."""
    firsts, size = _first_stage(handle, rows, window)
    # Ids of an enriched index or of several are not unique, so the fields are read with the codes.
    is_unique = handle.scope.is_whole and not handle.enriched
    vectors = rows != [] and rows[0].vectors is not None
    kept = [field_of(target), nested_path(target), *([vector_field(target)] if vectors else [])]
    source: Any = queries.user_source(kept)
    if is_unique:
        source = source_fields(target, vectors=vectors)
    found = first_stage(handle, firsts, size, target, filters, radius, source)
    lists = [
        _best(handle, hits, row, target, k, radius) for row, hits in zip(rows, found, strict=True)
    ]
    if not is_unique:
        return lists
    fields = read_fields(handle, [hit.id for hits in lists for hit in hits])
    return [
        [hit._replace(fields=fields[hit.id]) for hit in hits if hit.id in fields] for hits in lists
    ]


def _best(
    handle: IndexHandle,
    hits: Sequence[RawHit],
    query: QueryCodes,
    target: Modality,
    k: int,
    radius: int | None,
) -> list[Hit]:
    """Return the best ``k`` hits by codes and vectors in ``_source``."""
    dim = None if query.vectors is None else handle.dim
    sources = [hit["_source"] for hit in hits]
    stored = read_stored(sources, target, handle.layout, handle.bits, dim)
    return best_hits(hits, query, stored, k, radius)

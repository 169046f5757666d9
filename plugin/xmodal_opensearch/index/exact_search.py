"""Exact search by codes: the best k documents of each query by the strategy of an index."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, ServerFailure
from xmodal.index.contract import Hit, Hits
from xmodal.index.query_codes import QueryCodes, to_query_codes
from xmodal.index.validation import check_search
from xmodal.modality import Modality
from xmodal_opensearch.index import codec, queries
from xmodal_opensearch.index.comparison import first_stage_hits
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.mapping import nested_path
from xmodal_opensearch.index.queries import MAX_HITS, Query
from xmodal_opensearch.index.ranked import (
    Body,
    HitsHidden,
    RawHit,
    first_with_ties,
    with_ties,
)


def search_exact(
    handle: IndexHandle,
    codes: BinaryCodes | QueryCodes,
    k: int,
    *,
    target: Modality,
    where: Mapping[str, Any] | None = None,
    radius: int | None = None,
) -> Hits:
    """Return the best ``k`` documents for each code; see the contract of an index.

    Weights need a strategy that computes them (``handle.weighs``). Vectors have no effect.
    """
    given = to_query_codes(codes)
    check_search(given.codes, handle.bits, k, target, radius)
    filters = handle.filters(where)
    handle.refresh()
    rows = split_rows(given)
    if k > handle.window and handle.strategy.build is not None:
        found = []
        for row in rows:
            pages = pages_of_hits(
                handle, row, handle.window, target=target, where=where, radius=radius
            )
            with closing(pages):
                found.append(list(islice(chain.from_iterable(pages), k)))
        return found
    source = hit_source(target)
    if handle.strategy.build is None:
        # A knn query breaks ties in an order of its own.
        answers = first_stage(handle, rows, k, target, filters, radius, source)
    else:
        bodies = [body_of(handle, row, target, filters, radius, source)(k) for row in rows]
        answers = [answer["hits"]["hits"] for answer in handle.search(bodies)]
    return [
        first_stage_hits(hits, row, target, handle.layout, radius)[:k]
        for row, hits in zip(rows, answers, strict=True)
    ]


def hit_source(target: Modality) -> dict[str, Any]:
    """Return ``_source`` of hits: the user's fields and nested codes, to find the nearest one."""
    path = nested_path(target)
    return queries.user_source([path], [f"{path}.vector"])


def exact_query(
    handle: IndexHandle,
    query: QueryCodes,
    target: Modality,
    filters: Sequence[Query],
    radius: int | None = None,
    size: int = MAX_HITS,
) -> Query:
    """Return the query that scores all documents exactly, or all within ``radius``.

    The strategy knn returns the best ``size`` documents with one code, and as many with several. It
    ignores ``radius``, like the scripts of k-NN (``handle.strategy.limits``).
    """
    build = handle.strategy.build
    if build is None:
        can, nested = handle.capabilities, handle.queries_nested(target)
        if nested and filters and not (can.filters_nested or can.scripts):
            raise ConfigError(
                f"k-NN of OpenSearch {can.version[0]}.{can.version[1]} leaves out documents with "
                "several codes under a filter, and search.allow_expensive_queries is false: allow "
                "expensive queries, search without a filter, or upgrade to OpenSearch 3.5"
            )
        return queries.by_knn_all(
            target,
            query.codes,
            handle.layout,
            filters,
            size,
            nested=nested,
            filters_nested=can.filters_nested,
        )
    return queries.by_all(build, target, query, handle.layout, filters, radius)


def body_of(
    handle: IndexHandle,
    query: QueryCodes,
    target: Modality,
    filters: Sequence[Query],
    radius: int | None,
    source: Any = False,
) -> Body:
    """Return the search for one query, as a function of the number of hits."""
    strategy = handle.strategy
    selects = strategy.build is None and not handle.is_restricted
    scale = codec.SMALL_SCALE if selects else codec.SCALE
    limit = None if strategy.limits or strategy.build is None else radius

    def body(size: int) -> dict[str, Any]:
        exact = exact_query(handle, query, target, filters, radius, size)
        return queries.search_body(exact, size, source, radius=limit, scale=scale)

    return body


def first_stage(
    handle: IndexHandle,
    rows: Sequence[QueryCodes],
    count: int,
    target: Modality,
    filters: Sequence[Query],
    radius: int | None,
    source: Any = False,
) -> list[list[RawHit]]:
    """Return for each query the ``count`` best hits and all that tie with the last of them."""
    selects = handle.strategy.build is None
    limit = least_score(handle, radius)
    if not (selects and handle.is_restricted):
        bodies = [body_of(handle, row, target, filters, radius, source) for row in rows]
        try:
            return first_with_ties(handle, bodies, count, min_score=limit, selects=selects)
        except HitsHidden:
            handle.is_restricted = True
    bodies = [body_of(handle, row, target, filters, radius, source) for row in rows]
    return [
        with_ties(hits, count, 0.0, limit) for hits in _all_visible(handle, bodies, target, filters)
    ]


def _all_visible(
    handle: IndexHandle, bodies: Sequence[Body], target: Modality, filters: Sequence[Query]
) -> list[list[RawHit]]:
    """Return all hits of knn queries of a user with document-level security.

    A knn query selects the nearest documents of each shard before hidden ones are removed, so the
    visible ones are complete only if all are among the hits. Raises ServerFailure otherwise.
    """
    nested = handle.queries_nested(target)
    present = queries.present(target, handle.layout, nested=nested)
    visible = handle.count({"bool": {"filter": [present, *filters]}})
    answers = handle.search([body(handle.window) for body in bodies])
    found = [answer["hits"]["hits"] for answer in answers]
    for hits in found:
        if len(hits) != visible:
            raise ServerFailure(
                f"{handle.address}: document-level security hides documents from this user, and a "
                f"knn query found {len(hits):,} of {visible:,} visible ones: search with "
                "strategy=hamming or strategy=script, or filter",
                0,
                "document-level security",
            )
    return found


def pages_of_hits(
    handle: IndexHandle,
    code: BinaryCodes | QueryCodes,
    size: int,
    *,
    target: Modality,
    where: Mapping[str, Any] | None = None,
    radius: int | None = None,
) -> Generator[list[Hit]]:
    """Yield all hits of one query in order, ``size`` per page; raise ConfigError for strategy knn.

    The server keeps a point in time open until the generator ends or is closed.
    """
    query = to_query_codes(code)
    check_search(query.codes, handle.bits, size, target, radius)
    filters = handle.filters(where)
    handle.refresh()
    if handle.strategy.build is None:
        raise ConfigError("strategy=knn returns the nearest only: page with strategy=script")
    body = body_of(handle, query, target, filters, radius, hit_source(target))
    for answer in handle.pages(body(min(size, MAX_HITS)), doing="paging"):
        yield first_stage_hits(answer["hits"]["hits"], query, target, handle.layout, radius)


def count_within(
    handle: IndexHandle, code: BinaryCodes, target: Modality, filters: Sequence[Query], radius: int
) -> int:
    """Return the number of documents within ``radius`` bits of a code."""
    if radius < 0:
        return 0
    query = QueryCodes(code)
    if handle.strategy.build is None:
        return len(first_stage(handle, [query], MAX_HITS - 1, target, filters, radius)[0])
    exact = exact_query(handle, query, target, filters, radius)
    (answer,) = handle.search([queries.count_body(exact, radius)])
    return int(answer["hits"]["total"]["value"])


def least_score(handle: IndexHandle, radius: int | None) -> float:
    """Return the score below which hits are beyond ``radius``, where the query has no radius."""
    is_unlimited = handle.strategy.build is None and radius is not None
    return codec.least_score(radius or 0) if is_unlimited else 0.0


def split_rows(queries: QueryCodes) -> list[QueryCodes]:
    """Return the queries one by one; weights that are all zero rank nothing and are left out."""
    rows = [queries[row : row + 1] for row in range(len(queries))]
    return [
        replace(row, weights=None) if row.weights is not None and not row.weights.any() else row
        for row in rows
    ]

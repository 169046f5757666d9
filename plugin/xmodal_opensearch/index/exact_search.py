"""Exact search: the best k documents of each query by the strategy of an index."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from itertools import chain, islice
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, ServerFailure
from xmodal.index.contract import Hit, Hits
from xmodal.index.validation import check_search
from xmodal.modality import Modality
from xmodal_opensearch.index import queries
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.queries import MAX_HITS, Query


def search_exact(
    handle: IndexHandle,
    codes: BinaryCodes,
    k: int,
    *,
    target: Modality,
    where: Mapping[str, Any] | None = None,
    radius: int | None = None,
) -> Hits:
    """Return the best ``k`` documents for each code; see the contract of an index."""
    check_search(codes, handle.bits, k, target, radius)
    filters = handle.filters(where)
    handle.refresh()
    rows = split_rows(codes)
    if handle.strategy.build is None:
        return nearest_with_ties(handle, rows, k, target, filters, radius)
    if k > MAX_HITS:
        found = []
        for row in rows:
            pages = pages_of_hits(handle, row, MAX_HITS, target=target, where=where, radius=radius)
            with closing(pages):
                found.append(list(islice(chain.from_iterable(pages), k)))
        return found
    bodies = [
        queries.search_body(exact_query(handle, row, target, filters, radius), k, target)
        for row in rows
    ]
    return [
        handle.to_hits(answer, row, target)
        for row, answer in zip(rows, handle.search(bodies), strict=True)
    ]


def exact_query(
    handle: IndexHandle,
    code: BinaryCodes,
    target: Modality,
    filters: Sequence[Query],
    radius: int | None = None,
) -> Query:
    """Return the query that scores all documents exactly, or all within ``radius``.

    The strategy knn ignores ``radius``; its caller removes the hits beyond it.
    """
    build = handle.strategy.build
    if build is None:
        nested = handle.queries_nested(target)
        return queries.by_knn_all(target, code, handle.layout, filters, MAX_HITS, nested=nested)
    return queries.by_all(build, target, code, handle.layout, filters, radius)


def pages_of_hits(
    handle: IndexHandle,
    code: BinaryCodes,
    size: int,
    *,
    target: Modality,
    where: Mapping[str, Any] | None = None,
    radius: int | None = None,
) -> Generator[list[Hit]]:
    """Yield all hits of one query in order, ``size`` per page; raise ConfigError for strategy knn.

    The server keeps a point in time open until the generator ends or is closed.
    """
    check_search(code, handle.bits, size, target, radius)
    filters = handle.filters(where)
    handle.refresh()
    if handle.strategy.build is None:
        raise ConfigError("strategy=knn returns the nearest only: page with strategy=script")
    query = exact_query(handle, code, target, filters, radius)
    body = queries.search_body(query, min(size, MAX_HITS), target)
    for answer in handle.pages(body, doing="paging"):
        yield handle.to_hits(answer, code, target)


def count_within(
    handle: IndexHandle, code: BinaryCodes, target: Modality, filters: Sequence[Query], radius: int
) -> int:
    """Return the number of documents within ``radius`` bits of a code."""
    if radius < 0:
        return 0
    if handle.strategy.build is None:
        (hits,) = nearest_with_ties(handle, [code], MAX_HITS - 1, target, filters, radius)
        return len(hits)
    return handle.count(exact_query(handle, code, target, filters, radius))


def nearest_with_ties(
    handle: IndexHandle,
    rows: Sequence[BinaryCodes],
    k: int,
    target: Modality,
    filters: Sequence[Query],
    radius: int | None,
) -> Hits:
    """Search by knn queries, enlarged until the ties across rank k are complete.

    An answer has the best ``size`` of two lists: documents with one code, and with several. Each
    list has its own best ``size`` documents, so the answer is that of one list of both kinds.
    """
    size = min(k + 1, MAX_HITS)
    found: list[list[Hit]] = [[] for _ in rows]
    limit = handle.bits if radius is None else radius
    incomplete = list(range(len(rows)))
    nested = handle.queries_nested(target)
    while incomplete:
        bodies = [
            queries.search_body(
                queries.by_knn_all(target, rows[row], handle.layout, filters, size, nested=nested),
                size,
                target,
            )
            for row in incomplete
        ]
        for row, answer in zip(incomplete, handle.search(bodies), strict=True):
            found[row] = handle.to_hits(answer, rows[row], target)
        incomplete = [row for row in incomplete if _is_cut_by_ties(found[row], k, size, limit)]
        if incomplete and size == MAX_HITS:
            raise ServerFailure(
                f"{handle.address}: more than {MAX_HITS:,} documents are among the best {k} or tie "
                "with them, and a knn query returns no more: use strategy=script, or filter",
                0,
                "ties",
            )
        size = min(4 * size, MAX_HITS)
    return [[hit for hit in hits[:k] if hit.distance <= limit] for hits in found]


def split_rows(codes: BinaryCodes) -> list[BinaryCodes]:
    """Return the codes one by one."""
    return [codes[row : row + 1] for row in range(len(codes))]


def _is_cut_by_ties(hits: list[Hit], k: int, size: int, limit: int) -> bool:
    """Return whether documents as near as the k-th hit may be missing."""
    if len(hits) < size or hits[-1].distance > limit:
        return False
    return len(hits) <= k or hits[-1].distance == hits[k - 1].distance

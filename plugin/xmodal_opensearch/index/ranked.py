"""The first hits of searches together with all documents that tie with the last of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from xmodal.errors import IndexFailure, ServerFailure
from xmodal_opensearch.index.codec import SCALE, SMALL_SCALE, unscaled
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.queries import MAX_HITS

RawHit = dict[str, Any]
Body = Callable[[int], dict[str, Any]]
"""Returns the body of a search, sorted by score and id, for a number of hits."""
MORE = 16
"""Hits of the first request beyond the wanted ones; most ties are among them."""


class HitsHidden(IndexFailure):
    """Document-level security hid some of the hits that a query had selected."""


def first_with_ties(
    handle: IndexHandle,
    bodies: Sequence[Body],
    count: int,
    *,
    tolerance: float = 0.0,
    min_score: float = 0.0,
    selects: bool = False,
) -> list[list[RawHit]]:
    """Return for each body the ``count`` best hits and all whose score ties with the last of them.

    Scores that differ by ``tolerance`` tie. Hits below ``min_score`` are left out. ``selects``: the
    queries select their hits before document-level security hides some, and their bodies have the
    scale ``codec.SMALL_SCALE``. Raises HitsHidden if this user has such restrictions.
    """
    found: list[list[RawHit]] = [[] for _ in bodies]
    incomplete = list(range(len(bodies)))
    size = min(count + MORE, handle.window)
    while incomplete:
        answers = handle.search([bodies[row](size) for row in incomplete])
        for row, answer in zip(incomplete, answers, strict=True):
            found[row] = answer["hits"]["hits"]
            if selects:
                _check_complete(handle, found[row])
        incomplete = [row for row in incomplete if len(found[row]) == size]
        incomplete = [
            row for row in incomplete if _may_continue(found[row], count, tolerance, min_score)
        ]
        if incomplete and size == handle.window:
            for row in incomplete:
                found[row] = _read_pages(handle, bodies[row], count, tolerance, min_score, selects)
            break
        size = min(4 * size, handle.window)
    return [with_ties(hits, count, tolerance, min_score) for hits in found]


def with_ties(
    hits: Sequence[RawHit], count: int, tolerance: float, min_score: float
) -> list[RawHit]:
    """Return the ``count`` best hits of a sorted list and all that tie with the last of them."""
    limit = _limit(hits, count, tolerance, min_score)
    return [hit for hit in hits if unscaled(hit["_score"]) >= limit]


def _check_complete(handle: IndexHandle, hits: Sequence[RawHit]) -> None:
    """Raise HitsHidden if hits may be missing; give the others the scores of ``codec.SCALE``."""
    # Scores of the queries are below 2 * SMALL_SCALE, and document-level security adds 1 or more.
    if any(hit["_score"] > 2 * SMALL_SCALE for hit in hits) or (
        not hits and handle.check_restrictions()
    ):
        raise HitsHidden(f"{handle.address}: document-level security hides documents")
    for hit in hits:
        hit["_score"] *= SCALE / SMALL_SCALE


def _limit(hits: Sequence[RawHit], count: int, tolerance: float, min_score: float) -> float:
    """Return the smallest score that is wanted, given the best hits."""
    if len(hits) < count:
        return min_score
    return max(min_score, unscaled(hits[count - 1]["_score"]) - tolerance)


def _may_continue(hits: Sequence[RawHit], count: int, tolerance: float, min_score: float) -> bool:
    return unscaled(hits[-1]["_score"]) >= _limit(hits, count, tolerance, min_score)


def _read_pages(
    handle: IndexHandle,
    body: Body,
    count: int,
    tolerance: float,
    min_score: float,
    selects: bool,
) -> list[RawHit]:
    """Return the hits of a search page by page, until a score is not wanted."""
    hits: list[RawHit] = []
    with closing(handle.pages(body(MAX_HITS), doing="searching")) as pages:
        for answer in pages:
            if selects:
                _check_complete(handle, answer["hits"]["hits"])
            hits += answer["hits"]["hits"]
            if not _may_continue(hits, count, tolerance, min_score):
                return hits
    if handle.strategy.build is None and len(hits) >= MAX_HITS:
        raise ServerFailure(
            f"{handle.address}: more than {MAX_HITS:,} documents are among the best {count} or tie "
            "with them, and a knn query returns no more: use strategy=script, or filter",
            0,
            "ties",
        )
    return hits

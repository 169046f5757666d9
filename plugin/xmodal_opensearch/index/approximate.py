"""Approximate search by a graph, and measurement of its recall on the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.contract import Hits
from xmodal.index.query_codes import QueryCodes
from xmodal.index.validation import check_search
from xmodal.modality import Modality, other_modality
from xmodal_opensearch.index import queries
from xmodal_opensearch.index.comparison import first_stage_hits
from xmodal_opensearch.index.exact_search import hit_source, search_exact, split_rows
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.index.reading import sample_codes

RECALL_QUERIES = 32


class Recall(NamedTuple):
    """Mean recall of the graph at ``k`` over ``queries`` stored codes.

    A document as near as the true k-th counts as correct, so ties do not reduce recall.
    """

    value: float
    k: int
    queries: int


class ApproximateHits(NamedTuple):
    """Hits of the graph, and its recall on this index."""

    hits: Hits
    recall: Recall


def search_graph(
    handle: IndexHandle,
    codes: BinaryCodes,
    k: int,
    *,
    target: Modality,
    where: Mapping[str, Any] | None = None,
) -> Hits:
    """Return the hits of the graph for each code.

    Raises ConfigError if the index has no graph (strategies lucene-hnsw and faiss-hnsw).
    """
    check_search(codes, handle.bits, k, target, None)
    filters = handle.filters(where)
    handle.refresh()
    return _by_graph(handle, split_rows(QueryCodes(codes)), k, target, filters)


def measure_recall(
    handle: IndexHandle, k: int, *, target: Modality, sample: int = RECALL_QUERIES
) -> Recall:
    """Compare the graph with exact search for ``sample`` stored codes.

    The queries are codes of the other modality, or of ``target`` if there are none.
    """
    _, codes = sample_codes(handle, other_modality(target), sample)
    if len(codes) == 0:
        _, codes = sample_codes(handle, target, sample)
    if len(codes) == 0:
        return Recall(1.0, k, 0)
    exact = search_exact(handle, codes, k, target=target)
    approximate = _by_graph(handle, split_rows(QueryCodes(codes)), k, target, handle.filters(None))
    recalls = [
        sum(hit.distance <= nearest[-1].distance for hit in hits) / len(nearest)
        for nearest, hits in zip(exact, approximate, strict=True)
        if nearest
    ]
    return Recall(float(np.mean(recalls)) if recalls else 1.0, k, len(codes))


def _by_graph(
    handle: IndexHandle,
    rows: Sequence[QueryCodes],
    k: int,
    target: Modality,
    filters: Sequence[Query],
) -> Hits:
    """Return the hits of the graph for each code of ``rows``."""
    if not handle.layout.has_graph:
        raise ConfigError(
            f"{handle.address} has no graph (its strategy is {handle.strategy.name}): load it into "
            "a new index with strategy=lucene-hnsw, or use search, which is exact"
        )
    if k > handle.window:
        raise ConfigError(f"k is {k}, expected at most {handle.window:,} for a graph")
    # The graph selects documents before document-level security hides some of them.
    selected = handle.window if handle.is_restricted else k
    bodies = [
        queries.search_body(
            queries.by_knn_all(
                target,
                row.codes,
                handle.layout,
                filters,
                selected,
                filters_nested=handle.capabilities.filters_nested,
            ),
            k,
            hit_source(target),
        )
        for row in rows
    ]
    return [
        first_stage_hits(answer["hits"]["hits"], row, target, handle.layout)
        for row, answer in zip(rows, handle.search(bodies), strict=True)
    ]

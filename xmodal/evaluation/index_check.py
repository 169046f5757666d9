"""Comparison of an index with the codes that were evaluated."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexMismatch
from xmodal.index.contract import Index
from xmodal.index.documents import DocumentBatch
from xmodal.modality import DIRECTIONS, Modality

MAX_CHECKED_HITS = 1000
"""Number of hits of each query that :func:`check_index` compares."""
MAX_CHECKED_QUERIES = 1000
"""Number of queries of each modality that :func:`check_index` compares."""
QUERIES_AT_ONCE = 64


def check_index(
    index: Index, queries: Mapping[Modality, BinaryCodes], documents: DocumentBatch
) -> str:
    """Search ``index`` with codes and compare the hits with the distances to ``documents``.

    The distance of a document is the smallest distance of its codes. The index may contain further
    documents. At most MAX_CHECKED_QUERIES queries of each modality are searched. Returns a sentence
    with the number of searches. Raises IndexMismatch if a document is missing or has another
    distance.
    """
    k = min(MAX_CHECKED_HITS, max(1, len(index)))
    searches = 0
    for source, target in DIRECTIONS:
        coded = documents.take(np.flatnonzero(documents.present[target]))
        count = min(len(queries[source]), MAX_CHECKED_QUERIES)
        chosen = np.linspace(0, len(queries[source]) - 1, count).astype(np.int64)
        for start in range(0, count if len(coded) else 0, QUERIES_AT_ONCE):
            batch = queries[source][chosen[start : start + QUERIES_AT_ONCE]]
            _check_searches(index, batch, target, coded, k)
            searches += len(batch)
    return f"{searches:,} searches, {k:,} nearest each: the items and distances are as measured"


def _check_searches(
    index: Index, queries: BinaryCodes, target: Modality, documents: DocumentBatch, k: int
) -> None:
    """Raise IndexMismatch for another distance, or a missing document that must be a hit."""
    row = {id_: number for number, id_ in enumerate(documents.ids)}
    codes = BinaryCodes(documents.packed[target], documents.bits)
    starts = documents.offsets[target][:-1]
    expected = np.minimum.reduceat(queries.distances(codes), starts, axis=1)
    missing = documents.bits + 1
    for hits, distances in zip(index.search(queries, k, target=target), expected, strict=True):
        # Documents at the distance of the last of k hits may be cut off; nearer ones may not.
        limit = hits[-1].distance if len(hits) == k else missing
        found = np.full(len(documents), missing)
        for hit in hits:
            if hit.id in row:
                found[row[hit.id]] = hit.distance
        wrong = np.flatnonzero((found != distances) & ((found != missing) | (distances < limit)))
        if len(wrong):
            one = int(wrong[0])
            state = "missing" if found[one] == missing else f"at distance {found[one]}"
            raise IndexMismatch(
                f"the index does not match the data: {documents.ids[one]!r} is {state}, expected "
                f"at distance {distances[one]}: index the data again"
            )

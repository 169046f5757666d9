"""Distances in the order of the stages of a search; see :mod:`xmodal.index.contract`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.index.contract import WINDOW
from xmodal.index.query_codes import QueryCodes
from xmodal.vectors import rank_keys

Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
OUTSIDE = 10.0
"""Distance of a document outside of the window is this plus its key; inside it is at most 2."""
BLOCK_ROWS = 1 << 15
"""Documents that are compared at once."""


def stage_distances(
    queries: QueryCodes, database: QueryCodes, *, vectors: bool, window: int = WINDOW
) -> Callable[[slice | Int64], Floats]:
    """Return a function: rows of queries -> (q, n) numbers that order the database as a search.

    The first stage is the weighted Hamming distance, or that of Hamming for queries without
    weights. With ``vectors`` the first ``window`` of the database and all that tie with the last of
    them are ordered by cosine. All sums are of integers, so equal rows have equal numbers.
    """

    def distances(rows: slice | Int64) -> Floats:
        some = queries[rows]
        keys = _by_blocks(_keys, some, database)
        if not vectors:
            return keys
        last = min(window, keys.shape[1]) - 1
        edge = np.partition(keys, last, axis=1)[:, last, None]
        return np.where(keys <= edge, 1 - _by_blocks(_cosines, some, database), OUTSIDE + keys)

    return distances


def _by_blocks(
    function: Callable[[QueryCodes, QueryCodes], npt.NDArray[Any]],
    queries: QueryCodes,
    database: QueryCodes,
) -> Floats:
    """Return the numbers (q, n) of a function of queries and some rows of the database."""
    found = np.empty((len(queries), len(database)))
    for start in range(0, len(database), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        found[:, rows] = function(queries, database[rows])
    return found


def _keys(queries: QueryCodes, database: QueryCodes) -> npt.NDArray[np.int64]:
    """Return the keys (q, n) of the first stage."""
    bits, signs = queries.bits, database.codes.to_signs()
    own = queries.codes.to_signs()
    hamming = ((bits - own @ signs.T) / 2).astype(np.int64)
    if queries.weights is None:
        return hamming
    weights = queries.weights.astype(np.float32)
    differing = weights.sum(axis=1, keepdims=True) - (weights * own) @ signs.T
    return rank_keys((differing / 2).astype(np.int64), hamming, bits)


def _cosines(queries: QueryCodes, database: QueryCodes) -> Floats:
    """Return the cosines (q, n) of int8 vectors."""
    rows, columns = (_wide(one.vectors) for one in (queries, database))
    lengths = np.sqrt(
        np.einsum("ij,ij->i", rows, rows)[:, None] * np.einsum("ij,ij->i", columns, columns)
    )
    cosines: Floats = np.zeros_like(lengths)
    np.divide(rows @ columns.T, lengths, out=cosines, where=lengths > 0)
    return cosines


def _wide(vectors: Any) -> Floats:
    if vectors is None:
        raise ValueError("the codes have no vectors, expected some for the second stage")
    wide: Floats = vectors.astype(np.float64)
    return wide

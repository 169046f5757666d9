"""Exact search over the codes and vectors of one modality, reduced from codes to documents."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.index.documents import DocumentBatch
from xmodal.index.query_codes import QueryCodes
from xmodal.index.scan import CodeScan, Mask, Positions, ScanQueries, UInt32
from xmodal.modality import Modality
from xmodal.vectors import Int8, cosine

SCANNED_AT_ONCE = 128
"""Queries that are compared with a block of codes before the next block."""


class Match(NamedTuple):
    """A document, its distance in bits, the position of its nearest code, and its similarity.

    The values are those of :class:`xmodal.index.contract.Hit`.
    """

    row: int
    distance: int
    nearest: int
    similarity: float


class Query(NamedTuple):
    """One query: its code with weights, the sum of the weights, and its vector."""

    scan: ScanQueries
    sum_of_weights: int
    vector: Int8 | None


class CodeSearch:
    """Codes, and vectors if there are any, of one modality of all documents.

    Codes are sorted by document and position. So the order of positions is the order of documents
    that the contract of an index requires at ties. ``check_vectors``: called with the first and the
    last position + 1 of the vectors that are read, arrays (n,), before they are read.
    """

    def __init__(
        self,
        documents: DocumentBatch,
        modality: Modality,
        check_vectors: Callable[[Positions, Positions], None] = lambda starts, ends: None,
    ) -> None:
        counts = documents.counts(modality)
        self._offsets = documents.offsets[modality]
        # With one code per document, the offsets are the rows: no second array is needed.
        self._one_each = bool((counts == 1).all())
        self._rows = (
            self._offsets[:-1] if self._one_each else np.repeat(np.arange(len(counts)), counts)
        )
        self._scan = CodeScan(documents.packed[modality])
        self._vectors, self._check_vectors = documents.vectors.get(modality), check_vectors

    def search(
        self,
        queries: QueryCodes,
        k: int,
        *,
        radius: int,
        window: int,
        mask: Mask | None = None,
    ) -> list[list[Match]]:
        """Return the best ``k`` documents of each query; see the contract of an index.

        ``mask``: the documents to search, (n,) bool.
        """
        by_code = mask if mask is None or self._one_each else mask[self._rows]
        searched = self._scan.mask(by_code)
        matches: list[list[Match]] = []
        for start in range(0, len(queries), SCANNED_AT_ONCE):
            scanned, split = self._split(queries[start : start + SCANNED_AT_ONCE])
            minima = self._scan.minima(scanned, radius=radius, searched=searched)
            for query, smallest in zip(split, minima, strict=True):
                first = k if query.vector is None else max(k, window)
                nearest = partial(
                    self._scan.nearest, query.scan, smallest, radius=radius, searched=searched
                )
                positions, keys = self._first_stage(nearest, first)
                if query.vector is None:
                    matches.append(self._by_key(query, positions[:k], keys[:k]))
                else:
                    rows = self._rows[positions]
                    matches.append(self._by_cosine(query, query.vector, rows, k))
        return matches

    def measure(self, queries: QueryCodes, rows: Positions) -> list[Match]:
        """Return the matches of the first query with the documents ``rows`` that have a code."""
        _, [query] = self._split(queries[:1])
        counts = np.diff(self._offsets)[rows]
        rows = rows[counts > 0]
        if query.vector is not None:
            return self._by_cosine(query, query.vector, rows, len(rows))
        positions, first = self._codes_of(rows)
        keys = self._scan.keys(query.scan, positions)
        best = first_minima(keys, first)
        return self._by_key(query, positions[best], keys[best])

    def _split(self, queries: QueryCodes) -> tuple[ScanQueries, list[Query]]:
        """Return all queries, and each of them, with a vector if the documents have vectors."""
        weights, n = queries.weights, len(queries)
        if weights is not None:  # weights that are all zero rank nothing
            weights = np.where(weights.any(axis=1, keepdims=True), weights, np.uint8(1))
        scanned = ScanQueries.of(queries.codes.packed, weights)
        sums = [queries.bits] * n if weights is None else weights.sum(axis=1, dtype=int).tolist()
        vectors: list[Int8 | None] = [None] * n
        if queries.vectors is not None and self._vectors is not None:
            vectors = list(queries.vectors)
        return scanned, [Query(scanned[row : row + 1], sums[row], vectors[row]) for row in range(n)]

    def _first_stage(
        self, nearest: Callable[[int], tuple[Positions, UInt32, bool]], k: int
    ) -> tuple[Positions, UInt32]:
        """Return the nearest code and its key of the best ``k`` documents and of those that tie.

        ``nearest``: :meth:`CodeScan.nearest` of the query. The documents are in order. Twice as
        many codes are requested until they are of ``k`` documents.
        """
        count, complete, best = k, False, np.zeros(0, np.int64)
        while not complete and len(best) < k:
            positions, keys, complete = nearest(count)
            best = np.arange(len(positions))
            if not self._one_each and len(best):
                best = first_minima(
                    keys, np.flatnonzero(np.diff(self._rows[positions], prepend=-1))
                )
            count *= 2
        positions, keys = positions[best], keys[best]
        if len(keys) > k:
            near = keys <= np.partition(keys, k - 1)[k - 1]
            positions, keys = positions[near], keys[near]
        order = np.argsort(keys, kind="stable")
        return positions[order], keys[order]

    def _by_key(self, query: Query, positions: Positions, keys: UInt32) -> list[Match]:
        """Return the matches of the codes at ``positions``, in this order."""
        similarities = 1 - 2 * query.scan.weighted(keys) / query.sum_of_weights
        return self._matches(positions, query.scan.hamming(keys), similarities)

    def _by_cosine(self, query: Query, vector: Int8, rows: Positions, k: int) -> list[Match]:
        """Return the best ``k`` matches of documents by the largest cosine of their vectors."""
        assert self._vectors is not None
        positions, first = self._codes_of(rows)
        self._check_vectors(self._offsets[rows], self._offsets[rows + 1])
        cosines = cosine(vector, self._vectors[positions])
        best = first_minima(-cosines, first)
        positions, cosines = positions[best], cosines[best]
        distances = query.scan.hamming(self._scan.keys(query.scan, positions))
        order = np.lexsort((positions, distances, -cosines))[:k]
        return self._matches(positions[order], distances[order], cosines[order])

    def _codes_of(self, rows: Positions) -> tuple[Positions, Positions]:
        """Return the positions of all codes of documents, and where each document starts in them.

        Every document has a code.
        """
        starts, ends = self._offsets[rows], self._offsets[rows + 1]
        counts = ends - starts
        first = np.cumsum(counts) - counts
        return np.arange(counts.sum()) + np.repeat(starts - first, counts), first

    def _matches(
        self, positions: Positions, distances: UInt32, similarities: npt.NDArray[np.float64]
    ) -> list[Match]:
        rows = self._rows[positions]
        nearest = positions - self._offsets[rows]
        columns = (rows, distances, nearest, similarities)
        return list(map(Match, *(column.tolist() for column in columns)))


def first_minima(
    values: npt.NDArray[np.uint32] | npt.NDArray[np.float64], first: Positions
) -> Positions:
    """Return the place of the first smallest value of each group.

    ``first``: place of the first value of each group, ascending from 0.
    """
    if len(first) == len(values):
        return np.arange(len(values))
    sizes = np.diff(first, append=len(values))
    smallest = np.repeat(np.minimum.reduceat(values, first), sizes)
    places = np.flatnonzero(values == smallest)
    groups = np.repeat(np.arange(len(first)), sizes)[places]
    return places[np.diff(groups, prepend=-1) > 0]

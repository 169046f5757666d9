"""Exact search over the codes and vectors of one modality, reduced from codes to documents."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.index.documents import DocumentBatch
from xmodal.index.query_codes import QueryCodes
from xmodal.index.scan import CodeScan, Mask, Positions, ScanQuery, UInt32, run_threads
from xmodal.modality import Modality
from xmodal.vectors import Int8, UInt8, cosine


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

    scan: ScanQuery
    sum_of_weights: int
    vector: Int8 | None


class CodeSearch:
    """Codes, and vectors if there are any, of one modality of all documents.

    Codes are sorted by document and position. So the order of positions is the order of documents
    that the contract of an index requires at ties.

    ``rows``: document of each code, (m,) int64.
    """

    def __init__(self, documents: DocumentBatch, modality: Modality) -> None:
        counts = documents.counts(modality)
        self._offsets = documents.offsets[modality]
        # With one code per document, the offsets are the rows: no second array is needed.
        self._one_each = bool((counts == 1).all())
        self.rows = (
            self._offsets[:-1] if self._one_each else np.repeat(np.arange(len(counts)), counts)
        )
        self._scan = CodeScan(documents.packed[modality])
        self._vectors = documents.vectors.get(modality)

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

        ``mask``: the codes to search, (m,) bool. Several threads share a search that is worth it:
        each takes some of the queries, or of the codes of a single query.
        """
        threads = self._scan.threads(len(queries))
        inner = threads if len(queries) == 1 else 1
        searched = self._scan.mask(mask)

        def one(query: Query) -> list[Match]:
            first = k if query.vector is None else max(k, window)
            positions, keys = self._first_stage(query.scan, first, radius, searched, inner)
            if query.vector is None:
                return self._by_key(query, positions[:k], keys[:k])
            return self._by_cosine(query, query.vector, self.rows[positions])[:k]

        return run_threads(one, self._split(queries), threads if inner == 1 else 1)

    def measure(self, queries: QueryCodes, rows: Positions) -> list[Match]:
        """Return the matches of the first query with the documents ``rows`` that have a code."""
        [query] = self._split(queries[:1])
        counts = np.diff(self._offsets)[rows]
        rows = rows[counts > 0]
        if query.vector is not None:
            return self._by_cosine(query, query.vector, rows)
        positions, first = self._codes_of(rows)
        keys = self._scan.keys(query.scan, positions)
        best = first_minima(keys, first)
        return self._by_key(query, positions[best], keys[best])

    def _split(self, queries: QueryCodes) -> list[Query]:
        """Return the single queries, with a vector if the documents have vectors."""
        weights: list[UInt8 | None] = [None] * len(queries)
        if queries.weights is not None:  # weights that are all zero rank nothing
            weights = [own if own.any() else None for own in queries.weights]
        vectors: list[Int8 | None] = [None] * len(queries)
        if queries.vectors is not None and self._vectors is not None:
            vectors = list(queries.vectors)
        rows = zip(queries.codes.packed, weights, vectors, strict=True)
        return [
            Query(ScanQuery.of(code, own), queries.bits if own is None else int(own.sum()), vector)
            for code, own, vector in rows
        ]

    def _first_stage(
        self, query: ScanQuery, k: int, radius: int, searched: Mask, threads: int
    ) -> tuple[Positions, UInt32]:
        """Return the nearest code and its key of the best ``k`` documents and of those that tie.

        The documents are in order. Twice as many codes are requested until they are of ``k``
        documents.
        """
        count, complete, best = k, False, np.zeros(0, np.int64)
        while not complete and len(best) < k:
            positions, keys, complete = self._scan.nearest(
                query, count, radius=radius, searched=searched, threads=threads
            )
            best = np.arange(len(positions))
            if not self._one_each and len(best):
                best = first_minima(keys, np.flatnonzero(np.diff(self.rows[positions], prepend=-1)))
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

    def _by_cosine(self, query: Query, vector: Int8, rows: Positions) -> list[Match]:
        """Return the matches of documents, in order of the largest cosine of their vectors."""
        assert self._vectors is not None
        positions, first = self._codes_of(rows)
        cosines = cosine(vector, self._vectors[positions])
        best = first_minima(-cosines, first)
        positions, cosines = positions[best], cosines[best]
        distances = query.scan.hamming(self._scan.keys(query.scan, positions))
        order = np.lexsort((positions, distances, -cosines))
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
        rows = self.rows[positions]
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

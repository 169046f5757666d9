"""Exact search over the codes and vectors of one modality, reduced from codes to documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.index.query_codes import QueryCodes
from xmodal.index.scan import (
    CodeColumn,
    CodeScan,
    Mask,
    Nearest,
    Positions,
    ScanQueries,
    UInt32,
    slices,
)
from xmodal.index.spans import positions_of
from xmodal.vectors import Int8, cosine

SCANNED_AT_ONCE = 128
"""Queries that are compared with a block of codes before the next block."""
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Part:
    """Codes of one modality of ``n`` documents, a segment of an index.

    Documents are in ascending order of id. Of each id, one part at most has a document that is not
    deleted.

    ``ids_of``: returns the ids of rows. ``offsets``: (n + 1,) int64, the codes of document i are
    those at ``offsets[i]`` to ``offsets[i + 1]``; None if each document has exactly one code.
    ``live``: (n,) bool, documents that are not deleted; None for all. ``vectors``: returns the
    vectors of all codes, (codes, dim) int8, after those at ranges of positions were verified: from
    the first positions to the last + 1, arrays (m,). None without vectors.
    """

    codes: CodeColumn
    ids_of: Callable[[Positions], Sequence[str]]
    offsets: Positions | None = None
    live: Mask | None = None
    vectors: Callable[[Positions, Positions], Int8] | None = None

    def __len__(self) -> int:
        return len(self.codes) if self.offsets is None else len(self.offsets) - 1

    def searched(self, mask: Mask | None) -> Mask | None:
        """Return the codes of the live documents of ``mask``, (codes,) bool; None for all."""
        if self.live is not None:
            mask = self.live if mask is None else mask & self.live
        if mask is None or self.offsets is None:
            return mask
        return np.repeat(mask, np.diff(self.offsets))

    def rows_of(self, positions: Positions) -> Positions:
        """Return the document of each code."""
        if self.offsets is None:
            return positions
        return np.searchsorted(self.offsets, positions, side="right") - 1

    def ranges(self, rows: Positions) -> tuple[Positions, Positions]:
        """Return the first position and the last + 1 of the codes of documents."""
        if self.offsets is None:
            return rows, rows + 1
        return self.offsets[rows], self.offsets[rows + 1]


class Match(NamedTuple):
    """A document, its distance in bits, the position of its nearest code, and its similarity.

    ``row``: of the document in the part with number ``part``. The other values are those of
    :class:`xmodal.index.contract.Hit`.
    """

    part: int
    row: int
    distance: int
    nearest: int
    similarity: float


class Query(NamedTuple):
    """One query: its code with weights, the sum of the weights, and its vector."""

    scan: ScanQueries
    sum_of_weights: int
    vector: Int8 | None


class Found(NamedTuple):
    """Documents in order of part and row: part, row and nearest code of each.

    ``positions`` and ``keys`` are of the code. ``cosines`` order the documents if there are any,
    otherwise the keys.
    """

    parts: Positions
    rows: Positions
    positions: Positions
    keys: UInt32
    cosines: Float64 | None = None

    def take(self, places: Positions) -> Found:
        """Return the documents at ``places``."""
        return Found(*(None if column is None else column[places] for column in self))  # type: ignore[arg-type]


class CodeSearch:
    """Search over all parts of one modality of an index."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._scan = CodeScan([part.codes for part in parts])
        self._one_each = all(part.offsets is None for part in parts)
        self._has_vectors = any(part.vectors is not None for part in parts)

    def search(
        self,
        queries: QueryCodes,
        k: int,
        *,
        radius: int,
        window: int,
        masks: Sequence[Mask | None] | None = None,
    ) -> list[list[Match]]:
        """Return the best ``k`` documents of each query; see the contract of an index.

        ``masks``: for each part the documents to search, (n,) bool, or None for all.
        """
        masks = [None] * len(self._parts) if masks is None else masks
        searched = [part.searched(mask) for part, mask in zip(self._parts, masks, strict=True)]
        matches: list[list[Match]] = []
        for start in range(0, len(queries), SCANNED_AT_ONCE):
            whole = len(queries) <= SCANNED_AT_ONCE  # a slice would be checked again
            scanned, split = self._split(
                queries if whole else queries[start : start + SCANNED_AT_ONCE]
            )
            minima = self._scan.minima(scanned, radius=radius, searched=searched)
            for query, smallest in zip(split, minima, strict=True):
                first = k if query.vector is None else max(k, window)
                nearest = partial(
                    self._scan.nearest, query.scan, smallest, radius=radius, searched=searched
                )
                found = self._first_stage(nearest, first)
                if query.vector is not None:
                    found = self._by_cosine(query, query.vector, found)
                matches.append(self._matches(query, found.take(self._best(query, found, k))))
        return matches

    def measure(self, queries: QueryCodes, rows: Sequence[Positions]) -> list[Match]:
        """Return the matches of the first query with documents that have a code.

        ``rows``: of each part.
        """
        _, [query] = self._split(queries[:1])
        by_part: list[Found] = []
        for number, (part, documents) in enumerate(zip(self._parts, rows, strict=True)):
            starts, ends = part.ranges(documents)
            by_part.append(self._nearest(number, query, query.vector, documents[ends > starts]))
        return [match for found in by_part for match in self._matches(query, found)]

    def _split(self, queries: QueryCodes) -> tuple[ScanQueries, list[Query]]:
        """Return all queries, and each of them, with a vector if the documents have vectors."""
        weights, n = queries.weights, len(queries)
        if weights is not None:  # weights that are all zero rank nothing
            weights = np.where(weights.any(axis=1, keepdims=True), weights, np.uint8(1))
        scanned = ScanQueries.of(queries.codes.packed, weights)
        sums = [queries.bits] * n if weights is None else weights.sum(axis=1, dtype=int).tolist()
        vectors: list[Int8 | None] = [None] * n
        if queries.vectors is not None and self._has_vectors:
            vectors = list(queries.vectors)
        return scanned, [Query(scanned[row : row + 1], sums[row], vectors[row]) for row in range(n)]

    def _first_stage(self, nearest: Callable[[int], Nearest], k: int) -> Found:
        """Return the best ``k`` documents by key and those that tie with the last of them.

        ``nearest``: :meth:`CodeScan.nearest` of the query. Twice as many codes are requested until
        they are of ``k`` documents.
        """
        count = k
        while True:
            codes = nearest(count)
            found = Found(codes.columns, self._rows_of(codes), codes.positions, codes.keys)
            if not self._one_each and len(found.keys):
                changes = np.diff(found.rows, prepend=-1) | np.diff(found.parts, prepend=-1)
                found = found.take(first_minima(found.keys, np.flatnonzero(changes)))
            if codes.complete or len(found.keys) >= k:
                break
            count *= 2
        if len(found.keys) > k:
            limit = np.partition(found.keys, k - 1)[k - 1]
            found = found.take(np.flatnonzero(found.keys <= limit))
        return found

    def _rows_of(self, codes: Nearest) -> Positions:
        """Return the document in its part of each code."""
        if self._one_each:
            return codes.positions
        rows = np.empty_like(codes.positions)
        for number, part in slices(codes.columns):
            rows[part] = self._parts[number].rows_of(codes.positions[part])
        return rows

    def _by_cosine(self, query: Query, vector: Int8, found: Found) -> Found:
        """Return the documents with their codes of the largest cosine."""
        return joined(
            [
                self._nearest(number, query, vector, found.rows[part])
                for number, part in slices(found.parts)
            ]
        )

    def _nearest(self, number: int, query: Query, vector: Int8 | None, rows: Positions) -> Found:
        """Return documents of one part with their nearest codes: by cosine, without it by key.

        Every document has a code.
        """
        part = self._parts[number]
        starts, ends = part.ranges(rows)
        counts = ends - starts
        first = np.cumsum(counts) - counts
        positions = positions_of(starts, ends)
        parts = np.full(len(rows), number)
        if vector is None:
            keys = part.codes.keys(query.scan, positions)
            best = first_minima(keys, first)
            return Found(parts, rows, positions[best], keys[best])
        assert part.vectors is not None
        cosines = cosine(vector, part.vectors(starts, ends)[positions])
        best = first_minima(-cosines, first)
        keys = part.codes.keys(query.scan, positions[best])
        return Found(parts, rows, positions[best], keys, cosines[best])

    def _best(self, query: Query, found: Found, k: int) -> Positions:
        """Return the places of the best ``k`` documents, in order; documents that tie by id."""
        if found.cosines is None:
            ranks: tuple[npt.NDArray[Any], ...] = (found.keys,)
        else:
            ranks = (query.scan.hamming(found.keys), -found.cosines)
        order = np.lexsort(ranks)  # the last one first; stable, so in a part by id
        of_parts = [order[found.parts[order] == number][:k] for number, _ in slices(found.parts)]
        if len(of_parts) <= 1:
            return order[:k]
        places = np.concatenate(of_parts)
        ids: list[str] = []
        for (number, _), own in zip(slices(found.parts), of_parts, strict=True):
            ids += self._parts[number].ids_of(found.rows[own])
        by_id = np.empty(len(ids), np.int64)
        by_id[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
        best: Positions = places[np.lexsort((by_id, *(rank[places] for rank in ranks)))[:k]]
        return best

    def _matches(self, query: Query, found: Found) -> list[Match]:
        """Return the matches of documents, in this order."""
        similarities = found.cosines
        if similarities is None:
            similarities = 1 - 2 * query.scan.weighted(found.keys) / query.sum_of_weights
        nearest = np.zeros(len(found.rows), np.int64)
        if not self._one_each:
            for number in set(found.parts.tolist()):
                own = found.parts == number
                starts, _ = self._parts[number].ranges(found.rows[own])
                nearest[own] = found.positions[own] - starts
        distances = query.scan.hamming(found.keys)
        columns = (found.parts, found.rows, distances, nearest, similarities)
        return list(map(Match, *(column.tolist() for column in columns)))


def joined(parts: Sequence[Found]) -> Found:
    """Return the documents of all parts, which have cosines."""
    if not parts:
        empty = np.zeros(0, np.int64)
        return Found(empty, empty, empty, np.zeros(0, np.uint32), np.zeros(0))
    return Found(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


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

"""Exact search over the codes of one modality by FAISS, reduced from codes to documents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from xmodal.index.documents import DocumentBatch
from xmodal.modality import Modality


class Match(NamedTuple):
    """A document, its distance in bits, and the position of its nearest code among its codes."""

    row: int
    distance: int
    nearest: int


class CodeSearch:
    """Codes of one modality of all documents in a FAISS index.

    Codes are sorted by document and position. ``IndexBinaryFlat`` returns equal distances in order
    of position. Therefore the first code of a document in a result is its nearest one, and
    documents appear in the order that the contract of an index requires.

    ``rows``: document of each code, (m,) int64.
    """

    def __init__(self, documents: DocumentBatch, modality: Modality) -> None:
        counts = documents.counts(modality)
        self._starts = documents.offsets[modality][:-1]
        # With one code per document, the offsets are the rows: no second array is needed.
        one_each = bool((counts == 1).all())
        self.rows = self._starts if one_each else np.repeat(np.arange(len(counts)), counts)
        self._max_codes = int(counts.max(initial=0))
        self._mean_codes = len(self.rows) / max(1, int((counts > 0).sum()))
        self._flat = faiss.IndexBinaryFlat(documents.bits)
        self._flat.add(np.ascontiguousarray(documents.packed[modality]))

    def search(
        self,
        packed: npt.NDArray[np.uint8],
        k: int,
        *,
        radius: int,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> list[list[Match]]:
        """Return the best ``k`` documents within ``radius`` bits, for each of the packed queries.

        ``mask``: the codes to search, (m,) bool. The nearest codes are requested, more than ``k``
        if documents have several, and again twice as many for the queries whose codes are of fewer
        than ``k`` documents.
        """
        results: list[list[Match]] = [[] for _ in packed]
        count, parameters = len(self.rows), None
        if mask is not None:
            count = int(mask.sum())
            # FAISS reads this buffer during the search; the variable keeps it alive until then.
            bitmap = np.packbits(mask, bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))
        if count == 0:
            return results
        # The codes of k - 1 documents and one more are always of k documents.
        enough = min(count, (k - 1) * self._max_codes + 1)
        n = min(enough, k if self._max_codes == 1 else int(2 * k * self._mean_codes))
        pending = np.arange(len(packed))
        while len(pending):
            with limit_threads(len(pending)):
                found = self._flat.search(packed[pending], n, params=parameters)
            incomplete = []
            for query, distances, positions in zip(pending, *found, strict=True):
                first = self._first_codes(positions)[:k]
                if len(first) < k and n < enough and distances[-1] <= radius:
                    incomplete.append(query)
                else:
                    within = first[distances[first] <= radius]
                    results[query] = self._matches(positions[within], distances[within])
            pending, n = np.array(incomplete, np.int64), min(2 * n, enough)
        return results

    def _first_codes(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the places in ``positions`` of the first code of each document."""
        if self._max_codes == 1:
            return np.arange(len(positions))
        return np.sort(np.unique(self.rows[positions], return_index=True)[1])

    def _matches(
        self, positions: npt.NDArray[np.int64], distances: npt.NDArray[np.int32]
    ) -> list[Match]:
        rows = self.rows[positions]
        nearest = positions - self._starts[rows]
        return list(map(Match, rows.tolist(), distances.tolist(), nearest.tolist()))


@contextmanager
def limit_threads(queries: int) -> Iterator[None]:
    """Let FAISS use at most one thread per query; more would only spin while they wait."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(before, queries))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)

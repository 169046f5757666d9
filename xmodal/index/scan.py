"""Exact scan of all codes of one modality for the codes that are nearest to a query."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.index.scan_kernel import BLOCK, NO_KEY, kernel
from xmodal.vectors import UInt8

UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

WORDS_PER_THREAD = 1 << 21
"""Words of codes for which the start of a second thread takes less time than it saves."""


@dataclass(frozen=True, eq=False)
class ScanQueries:
    """``n`` queries as the kernel reads them.

    ``rows``: (n, 1 + planes, words) uint64: the code, then a bit plane for each power of two of
    the weights: plane p has the bits whose weights contain 2 ** p. Without planes, keys are Hamming
    distances.
    """

    rows: UInt64
    bits: int

    @classmethod
    def of(cls, packed: UInt8, weights: UInt8 | None) -> ScanQueries:
        """Return the queries of packed codes (n, bits / 8), and of weights (n, bits)."""
        levels = 0 if weights is None else int(weights.max(initial=0)).bit_length()
        planes = [np.packbits(weights >> level & 1, axis=1) for level in range(levels)]  # type: ignore[operator]
        return cls(_words(np.stack([packed, *planes], axis=1)), 8 * packed.shape[1])

    def __getitem__(self, rows: slice) -> ScanQueries:
        """Return the queries of a slice."""
        return ScanQueries(self.rows[rows], self.bits)

    @property
    def planes(self) -> int:
        """Number of bit planes."""
        return int(self.rows.shape[1]) - 1

    def hamming(self, keys: UInt32) -> UInt32:
        """Return the Hamming distances that keys contain."""
        return keys % np.uint32(self.bits + 1) if self.planes else keys

    def weighted(self, keys: UInt32) -> UInt32:
        """Return the weighted Hamming distances that keys contain."""
        return keys // np.uint32(self.bits + 1) if self.planes else keys


class CodeScan:
    """``n`` codes in memory, word by word: (words, n) uint64, padded to whole blocks."""

    def __init__(self, packed: UInt8) -> None:
        self._n = len(packed)
        self._words = word_major(packed)
        self._blocks = np.arange(self._words.shape[1] // BLOCK)
        self._all = self.mask(np.ones(self._n, np.bool_))

    def mask(self, searched: Mask | None) -> Mask:
        """Return the codes to search, (n,) bool, or None for all, extended to whole blocks."""
        if searched is None:
            return self._all
        return np.pad(searched, (0, self._words.shape[1] - self._n))

    def minima(self, queries: ScanQueries, *, radius: int, searched: Mask) -> UInt32:
        """Return the smallest key of each block for each query, (queries, blocks).

        ``searched``: the codes to search, as :meth:`mask` returns them. Threads share the blocks.
        """
        minima = np.empty((len(queries.rows), len(self._blocks)), np.uint32)
        work = self._words.size * len(queries.rows)
        threads = max(1, min(_processors(), work // WORDS_PER_THREAD))
        unused = [np.empty(BLOCK, np.uint32) for _ in range(threads)]

        def scan(part: int) -> None:
            blocks = np.array_split(self._blocks, threads)[part]
            if len(blocks):
                found = minima[:, blocks[0] : blocks[-1] + 1]
                self._scan(queries, searched, blocks, radius, found, unused[part], 0)

        if threads == 1:
            scan(0)
        else:  # a pool that outlives the call would be without threads in a forked process
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(scan, range(threads)))
        return minima

    def nearest(
        self, query: ScanQueries, minima: UInt32, count: int, *, radius: int, searched: Mask
    ) -> tuple[Positions, UInt32, bool]:
        """Return at least ``count`` nearest codes: ascending positions, their keys, completeness.

        ``query``: one query, with its row of :meth:`minima`. All codes up to the ``count``-th
        smallest key are returned, so none that ties with another is missing. Completeness is True
        if these are all codes within ``radius`` bits.

        Only blocks whose minimum is at most the ``count``-th smallest minimum can contain such a
        code. The keys of all of their codes are computed.
        """
        blocks = np.flatnonzero(minima <= _smallest(minima, count))
        keys = np.empty(len(blocks) * BLOCK, np.uint32)
        unused = np.empty((1, len(blocks)), np.uint32)
        self._scan(query, searched, blocks, radius, unused, keys, BLOCK)
        limit = _smallest(keys, count)
        places = np.flatnonzero(keys <= limit)
        positions = blocks[places // BLOCK] * BLOCK + places % BLOCK
        return positions, keys[places], limit == NO_KEY - 1

    def keys(self, query: ScanQueries, positions: Positions) -> UInt32:
        """Return the keys of the codes at ``positions`` for one query."""
        code, *planes = query.rows[0]
        different = self._words[:, positions] ^ code[:, None]
        keys: UInt32 = np.bitwise_count(different).sum(axis=0, dtype=np.uint32)
        for exponent, plane in enumerate(planes):
            ones = np.bitwise_count(different & plane[:, None]).sum(axis=0, dtype=np.uint32)
            keys += (ones << np.uint32(exponent)) * np.uint32(query.bits + 1)
        return keys

    def _scan(
        self,
        queries: ScanQueries,
        searched: Mask,
        blocks: Positions,
        radius: int,
        minima: UInt32,
        keys: UInt32,
        stride: int,
    ) -> None:
        """Call the kernel; ``minima``: (queries, blocks), which may be columns of a larger array.

        ``stride``: BLOCK to write all keys of one query, 0 to write each over the one before.
        """
        rows = np.ascontiguousarray(queries.rows)
        kernel(len(self._words), queries.planes)(
            *(self._words, self._words.shape[1], searched, blocks, len(blocks)),
            *(rows, len(rows), queries.bits + 1, min(radius, queries.bits)),
            *(keys, stride, minima, minima.strides[0] // minima.itemsize),
        )


def _smallest(keys: UInt32, count: int) -> int:
    """Return the ``count``-th smallest key; without so many keys, the largest that a code has."""
    if count >= len(keys):
        return NO_KEY - 1
    return min(NO_KEY - 1, int(np.partition(keys, count - 1)[count - 1]))


def word_major(packed: UInt8) -> UInt64:
    """Return packed codes (n, bits / 8) word by word: (words, n), padded to whole blocks."""
    n, size = packed.shape
    words = np.zeros((-(-size // 8), -(-n // BLOCK) * BLOCK), np.uint64)
    for start in range(0, n, 1 << 16):  # in parts: needs less memory
        part = packed[start : start + (1 << 16)]
        words[:, start : start + len(part)] = _words(part).T
    return words


def _words(packed: UInt8) -> UInt64:
    """Return packed bytes (..., m) as 64-bit words, the last one filled with zeros."""
    padding = -packed.shape[-1] % 8
    if padding:
        packed = np.pad(packed, [(0, 0)] * (packed.ndim - 1) + [(0, padding)])
    words: UInt64 = np.ascontiguousarray(packed).view(np.uint64)
    return words


def _processors() -> int:
    """Return the number of processors that this process may use."""
    affinity: Any = getattr(os, "sched_getaffinity", None)  # not on every platform
    return len(affinity(0)) if affinity else os.cpu_count() or 1

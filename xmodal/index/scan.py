"""Exact scan of all codes of one modality for the codes that are nearest to a query."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

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


class ScanQuery(NamedTuple):
    """A query as the kernel reads it: its code as ``words``, and the bit ``planes`` of its weights.

    ``planes``: (p, words) uint64; plane i has the bits whose weights contain 2 ** i. No planes:
    keys are Hamming distances.
    """

    words: UInt64
    planes: UInt64
    bits: int

    @classmethod
    def of(cls, packed: UInt8, weights: UInt8 | None) -> ScanQuery:
        """Return the query of a packed code (bits / 8,), and of the weights of its bits (bits,)."""
        levels = 0 if weights is None else int(weights.max()).bit_length()
        masks = [np.packbits(weights >> level & 1) for level in range(levels)]  # type: ignore[operator]
        planes = _words(np.array(masks, np.uint8).reshape(levels, len(packed)))
        return cls(_words(packed[None])[0], planes, 8 * len(packed))

    def hamming(self, keys: UInt32) -> UInt32:
        """Return the Hamming distances that keys contain."""
        return keys % np.uint32(self.bits + 1) if len(self.planes) else keys

    def weighted(self, keys: UInt32) -> UInt32:
        """Return the weighted Hamming distances that keys contain."""
        return keys // np.uint32(self.bits + 1) if len(self.planes) else keys


class CodeScan:
    """``n`` codes in memory, word by word: (words, n) uint64, padded to whole blocks."""

    def __init__(self, packed: UInt8) -> None:
        self._n, size = packed.shape
        blocks = -(-self._n // BLOCK)
        self._words = np.zeros((-(-size // 8), blocks * BLOCK), np.uint64)
        for start in range(0, self._n, 1 << 16):  # in parts: needs less memory
            part = packed[start : start + (1 << 16)]
            self._words[:, start : start + len(part)] = _words(part).T
        self._blocks = np.arange(blocks)
        self._all = self.mask(np.ones(self._n, np.bool_))

    def mask(self, searched: Mask | None) -> Mask:
        """Return the codes to search, (n,) bool, or None for all, extended to whole blocks."""
        if searched is None:
            return self._all
        return np.pad(searched, (0, self._words.shape[1] - self._n))

    def nearest(
        self,
        query: ScanQuery,
        count: int,
        *,
        radius: int,
        searched: Mask,
        threads: int = 1,
    ) -> tuple[Positions, UInt32, bool]:
        """Return at least ``count`` nearest codes: ascending positions, their keys, completeness.

        All codes up to one key are returned, so none that ties with another is missing.
        Completeness is True if these are all codes within ``radius`` bits. ``searched``: the codes
        to search, as :meth:`mask` returns them.

        The key is the ``count``-th smallest of the minima of the blocks: so many blocks have a code
        up to it. Keys of single codes are then computed for these blocks only.
        """
        minima = np.empty(len(self._blocks), np.uint32)
        parts = np.array_split(self._blocks, threads)
        run_threads(
            lambda part: self._scan(query, searched, part, radius, minima[part[0] : part[-1] + 1]),
            [part for part in parts if len(part)],
            threads,
        )
        limit = NO_KEY - 1
        if count < len(minima):
            limit = min(limit, int(np.partition(minima, count - 1)[count - 1]))
        blocks = np.flatnonzero(minima <= limit)
        keys = np.empty((len(blocks), BLOCK), np.uint32)
        self._scan(query, searched, blocks, radius, minima, keys)
        places, codes = np.nonzero(keys <= limit)
        return blocks[places] * BLOCK + codes, keys[places, codes], limit == NO_KEY - 1

    def keys(self, query: ScanQuery, positions: Positions) -> UInt32:
        """Return the keys of the codes at ``positions``."""
        blocks, places = np.unique(positions // BLOCK, return_inverse=True)
        keys = np.empty((len(blocks), BLOCK), np.uint32)
        self._scan(query, self._all, blocks, query.bits, np.empty(len(blocks), np.uint32), keys)
        found: UInt32 = keys[places, positions % BLOCK]
        return found

    def threads(self, queries: int) -> int:
        """Return the number of threads that a search for this number of queries is worth."""
        return max(1, min(_processors(), self._words.size * queries // WORDS_PER_THREAD))

    def _scan(
        self,
        query: ScanQuery,
        searched: Mask,
        blocks: Positions,
        radius: int,
        minima: UInt32,
        keys: UInt32 | None = None,
    ) -> None:
        """Write the minimum of each block to ``minima``, and to ``keys`` the keys of its codes."""
        n, radius = self._words.shape[1], min(radius, query.bits)
        out, stride = (np.empty(BLOCK, np.uint32), 0) if keys is None else (keys, BLOCK)
        kernel(len(self._words), len(query.planes))(
            *(self._words, n, searched, blocks, len(blocks)),
            *(query.words, query.planes, query.bits + 1, radius),
            *(out, stride, minima),
        )


def run_threads(call: Callable[[Any], Any], items: Iterable[Any], threads: int) -> list[Any]:
    """Return the results of ``call`` for each item, computed by so many threads."""
    if threads == 1:
        return list(map(call, items))
    # A pool that outlives the call would be without threads in a forked process.
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, items))


def _words(packed: UInt8) -> UInt64:
    """Return packed bytes (n, m) as 64-bit words, the last one filled with zeros."""
    padding = -packed.shape[1] % 8
    if padding:
        packed = np.pad(packed, ((0, 0), (0, padding)))
    words: UInt64 = np.ascontiguousarray(packed).view(np.uint64)
    return words


def _processors() -> int:
    """Return the number of processors that this process may use."""
    affinity: Any = getattr(os, "sched_getaffinity", None)  # not on every platform
    return len(affinity(0)) if affinity else os.cpu_count() or 1

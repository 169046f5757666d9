"""Exact scan of the codes of one modality for those that are nearest to a query.

A compiled loop computes the smallest key (distance) of each block of codes. Only the few blocks
whose minimum is small enough are scanned again for the keys of their codes. So no array of all
distances is written, and the order of codes with equal keys is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.index.scan_kernel import BLOCK, NO_KEY, kernel
from xmodal.operating_system import processors
from xmodal.vectors import UInt8

UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

WORDS_PER_THREAD = 1 << 20
"""Words compared in less time than another thread needs to begin."""
WORDS_PER_CHUNK = 1 << 16
"""Words that a thread compares before it takes the next blocks."""
ALL = np.ones(BLOCK, np.bool_)
ALL_ADDRESS = ALL.ctypes.data


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
        if weights is None:
            return cls(_words(packed[:, None]), 8 * packed.shape[1])
        levels = int(weights.max(initial=0)).bit_length()
        planes = [np.packbits(weights >> level & 1, axis=1) for level in range(levels)]
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


class Nearest(NamedTuple):
    """Codes in order of column and position, and their keys.

    ``complete``: whether these are all codes within the radius.
    """

    columns: Positions
    positions: Positions
    keys: UInt32
    complete: bool


class CodeColumn:
    """``n`` codes word by word.

    ``words``: (words, m) uint64, C-contiguous, see :func:`word_major`. It is not copied and may be
    mapped from a file.
    """

    def __init__(self, words: UInt64, n: int) -> None:
        whole = words.shape[1] == padded(n) and words.dtype == np.uint64
        if not whole or not words.flags.c_contiguous:
            raise ValueError(f"{words.dtype} of shape {words.shape} are no column of {n} codes")
        self.words, self._n = words, n
        self.blocks = np.arange(words.shape[1] // BLOCK)
        self._address = words.ctypes.data

    @classmethod
    def of(cls, packed: UInt8) -> CodeColumn:
        """Return the column of packed codes, (n, bits / 8)."""
        return cls(word_major(packed), len(packed))

    def __len__(self) -> int:
        return self._n

    def packed(self, bits: int) -> UInt8:
        """Return the packed codes, (n, bits / 8)."""
        rows = np.ascontiguousarray(self.words[:, : self._n].T)
        return np.ascontiguousarray(rows.view(np.uint8)[:, : bits // 8])

    def scan(
        self,
        queries: ScanQueries,
        blocks: Positions,
        minima: UInt32,
        *,
        radius: int,
        searched: Mask | None,
        keys: UInt32 | None = None,
    ) -> None:
        """Compute keys for ``blocks``; threads share them if they are many.

        ``minima``: set to the smallest key of each block, (queries, blocks); may be columns of a
        larger array. ``searched``: the codes to search, (n,) bool, None for all. ``keys``: set to
        the keys of all codes for the only query, (blocks, BLOCK). Blocks without a code to search
        are left as they are.
        """
        if not len(blocks) or not len(queries.rows):
            return
        if searched is not None and (searched.shape != (self._n,) or searched.dtype != np.bool_):
            raise ValueError(f"a mask of shape {searched.shape} is none of {self._n} codes")
        last = self._n // BLOCK
        searched_last = np.zeros(BLOCK, np.bool_)
        searched_last[: self._n % BLOCK] = True if searched is None else searched[last * BLOCK :]
        arguments = (
            *(self._address, self.words.shape[1]),
            *((ALL_ADDRESS, 0) if searched is None else (np.ascontiguousarray(searched), BLOCK)),
            *(last, searched_last, blocks, len(blocks)),
            *(np.zeros(1, np.int64), max(1, WORDS_PER_CHUNK // (queries.rows.size * BLOCK))),
            *(np.ascontiguousarray(queries.rows), len(queries.rows)),
            *(queries.bits + 1, min(radius, queries.bits), minima if keys is None else keys),
            *(minima, minima.strides[0] // minima.itemsize),
        )
        run = kernel(len(self.words), queries.planes, keys is not None)
        threads = len(blocks) * BLOCK * queries.rows.size // WORDS_PER_THREAD
        threads = min(processors(), threads) if threads > 1 else 1
        helpers = [_threads().submit(run.__call__, *arguments) for _ in range(threads - 1)]
        run(*arguments)
        for helper in helpers:
            if not helper.cancel():  # one that has not begun is not needed any more
                helper.result()

    def keys(self, query: ScanQueries, positions: Positions) -> UInt32:
        """Return the keys of the codes at ``positions`` for one query."""
        code, *planes = query.rows[0]
        different = self.words[:, positions] ^ code[:, None]
        keys: UInt32 = np.bitwise_count(different).sum(axis=0, dtype=np.uint32)
        for exponent, plane in enumerate(planes):
            ones = np.bitwise_count(different & plane[:, None]).sum(axis=0, dtype=np.uint32)
            keys += (ones << np.uint32(exponent)) * np.uint32(query.bits + 1)
        return keys


class CodeScan:
    """Scan of several columns; a block has its number, after the blocks of all columns before."""

    def __init__(self, columns: Sequence[CodeColumn]) -> None:
        self._columns = columns
        sizes = [len(column.blocks) for column in columns]
        self._starts = np.cumsum([0, *sizes])  # number of the first block of each column

    def minima(
        self, queries: ScanQueries, *, radius: int, searched: Sequence[Mask | None]
    ) -> UInt32:
        """Return the smallest key of each block for each query, (queries, blocks).

        ``searched``: for each column the codes to search, (n,) bool, or None for all.
        """
        minima = np.full((len(queries.rows), self._starts[-1]), NO_KEY, np.uint32)
        for column, start, mask in zip(self._columns, self._starts, searched, strict=False):
            found = minima[:, start : start + len(column.blocks)]
            column.scan(queries, column.blocks, found, radius=radius, searched=mask)
        return minima

    def nearest(
        self,
        query: ScanQueries,
        minima: UInt32,
        count: int,
        *,
        radius: int,
        searched: Sequence[Mask | None],
    ) -> Nearest:
        """Return at least ``count`` nearest codes, if so many are within the radius.

        ``query``: one query, with its row of :meth:`minima`. All codes up to the ``count``-th
        smallest key are returned, so none that ties with another is missing.

        Only blocks whose minimum is at most the ``count``-th smallest minimum can contain such a
        code. The keys of all of their codes are computed.
        """
        largest = NO_KEY - 1 if query.planes else min(radius, query.bits)
        blocks = np.flatnonzero(minima <= _smallest(minima, count, largest))
        columns = np.searchsorted(self._starts, blocks, side="right") - 1
        blocks -= self._starts[columns]
        keys = np.empty((len(blocks), BLOCK), np.uint32)
        unused = np.empty((1, len(blocks)), np.uint32)
        for number, part in slices(columns):
            self._columns[number].scan(
                *(query, blocks[part], unused[:, part]),
                radius=radius,
                searched=searched[number],
                keys=keys[part],
            )
        flat = keys.ravel()
        limit = _smallest(flat, count, largest)
        places = np.flatnonzero(flat <= limit)
        own = places // BLOCK
        positions = blocks[own] * BLOCK + places % BLOCK
        return Nearest(columns[own], positions, flat[places], limit == largest)


def slices(numbers: Positions) -> Iterator[tuple[int, slice]]:
    """Yield each different number of an ascending array, and where it is."""
    if not len(numbers):
        return
    one = numbers[0] == numbers[-1]
    starts = [0] if one else np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(numbers)]):
        yield int(numbers[start]), slice(start, end)


def word_major(packed: UInt8) -> UInt64:
    """Return packed codes (n, bits / 8) word by word: (words, m), with zeros to whole blocks."""
    n, size = packed.shape
    words = np.zeros((-(-size // 8), padded(n)), np.uint64)
    for start in range(0, n, 1 << 16):  # in parts: needs less memory
        part = packed[start : start + (1 << 16)]
        words[:, start : start + len(part)] = _words(part).T
    return words


def padded(n: int) -> int:
    """Return the length of a column of ``n`` codes, in whole blocks."""
    return -(-n // BLOCK) * BLOCK


def _smallest(keys: UInt32, count: int, largest: int) -> int:
    """Return the ``count``-th smallest key, at most ``largest``; ``largest`` without so many."""
    rows = keys[: len(keys) // 64 * 64].reshape(64, -1)
    if count <= rows.shape[1]:  # so many columns have a minimum up to the limit
        limit = np.partition(rows.min(axis=0), count - 1)[count - 1]
        keys = keys[keys <= limit]
    if count > len(keys):
        return largest
    return min(largest, int(np.partition(keys, count - 1)[count - 1]))


def _words(packed: UInt8) -> UInt64:
    """Return packed bytes (..., m) as 64-bit words, the last one filled with zeros."""
    padding = -packed.shape[-1] % 8
    if padding:
        packed = np.pad(packed, [(0, 0)] * (packed.ndim - 1) + [(0, padding)])
    words: UInt64 = np.ascontiguousarray(packed).view(np.uint64)
    return words


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads that help a search, besides the one that calls it."""
    return ThreadPoolExecutor(max(1, processors() - 1), "xmodal-scan")


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_threads.cache_clear)

"""Nearest codes and keys of a scan, compared with bits that are counted one by one."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from xmodal.index.scan import CodeColumn, CodeScan, ScanQueries
from xmodal.index.scan_kernel import BLOCK

SIZES = [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7]


def expected_keys(
    packed: np.ndarray, query: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return keys and Hamming distances of all codes."""
    different = np.unpackbits(packed ^ query, axis=1).astype(np.int64)
    hamming = different.sum(axis=1)
    if weights is None:
        return hamming, hamming
    return (different @ weights.astype(np.int64)) * (different.shape[1] + 1) + hamming, hamming


def random_codes(rng: np.random.Generator, n: int, bits: int) -> np.ndarray:
    """Return packed codes of which many tie: each has few random bytes."""
    packed = rng.integers(0, 256, (n, bits // 8), dtype=np.uint8)
    packed[:, 1:] &= rng.integers(0, 2, (n, 1), dtype=np.uint8) * 255
    return packed


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bits", [8, 40, 64, 72, 128, 192, 256, 384, 520, 1024, 2048])
def test_nearest_and_keys_equal_counted_bits(bits: int, weighted: bool) -> None:
    rng = np.random.default_rng(bits)
    for n in SIZES:
        packed = random_codes(rng, n, bits)
        queries = packed[rng.integers(n, size=3)] ^ np.packbits(rng.random((3, bits)) < 0.2, axis=1)
        weights = rng.integers(0, 16, (3, bits)).astype(np.uint8) if weighted else None
        bounds = [0, *np.sort(rng.integers(0, n + 1, 2)).tolist(), n]  # of three columns
        parts = [slice(start, end) for start, end in pairwise(bounds)]
        columns = [CodeColumn.of(packed[part]) for part in parts]
        scan, scanned = CodeScan(columns), ScanQueries.of(queries, weights)
        searched = rng.random(n) < rng.choice([0.02, 0.5, 1])
        for row in range(3):
            own = None if weights is None else weights[row]
            keys, hamming = expected_keys(packed, queries[row], own)
            query = scanned[row : row + 1]
            for count, radius, mask in (
                (1, bits, None),
                (3, bits, searched),
                (2 * n, bits, searched),
                (1, int(np.median(hamming)), None),
                (4, 0, searched),
            ):
                allowed = (hamming <= radius) & (True if mask is None else mask)
                masks = [None if mask is None else mask[part] for part in parts]
                minima = scan.minima(scanned, radius=radius, searched=masks)[row]
                found = scan.nearest(query, minima, count, radius=radius, searched=masks)
                positions = np.array(bounds)[found.columns] + found.positions
                assert np.array_equal(found.keys, keys[positions])
                assert found.complete or len(positions) >= count
                limit = np.sort(keys[allowed])[: count if count < n else n].max(initial=0)
                within = allowed & (found.complete | (keys <= limit))
                assert np.array_equal(positions, np.flatnonzero(within))
        column = CodeColumn.of(packed)
        places = rng.integers(0, n, 9)
        assert np.array_equal(column.keys(query, places), keys[places])
        assert np.array_equal(query.hamming(column.keys(query, places)), hamming[places])
        assert np.array_equal(column.packed(bits), packed)


def test_threads_share_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = random_codes(np.random.default_rng(0), 3 * BLOCK + 5, 64)
    scan, queries = CodeScan([CodeColumn.of(packed)]), ScanQueries.of(packed[:4], None)
    expected = scan.minima(queries, radius=64, searched=[None])
    monkeypatch.setattr("xmodal.index.scan.WORDS_PER_THREAD", 1)
    monkeypatch.setattr("xmodal.index.scan.WORDS_PER_CHUNK", 1)
    for threads in (2, 3, 7):
        monkeypatch.setattr("xmodal.index.scan.processors", lambda threads=threads: threads)
        for _ in range(20):
            assert np.array_equal(scan.minima(queries, radius=64, searched=[None]), expected)


def test_the_kth_smallest_key_of_many_blocks() -> None:
    rng = np.random.default_rng(1)
    for n in (9 * BLOCK, 200 * BLOCK + 1):
        packed = rng.integers(0, 256, (n, 8), dtype=np.uint8)
        scan, query = CodeScan([CodeColumn.of(packed)]), ScanQueries.of(packed[-1:], None)
        keys, _ = expected_keys(packed, packed[-1], None)
        minima = scan.minima(query, radius=64, searched=[None])[0]
        for count in (1, 2, 10, 150, 1000):
            found = scan.nearest(query, minima, count, radius=64, searched=[None])
            within = np.flatnonzero(keys <= np.sort(keys)[count - 1])
            assert np.array_equal(found.positions, within)


def test_no_codes_and_no_queries() -> None:
    query = ScanQueries.of(np.zeros((1, 8), np.uint8), None)
    column = CodeColumn.of(np.zeros((0, 8), np.uint8))
    for columns in ([], [column], [column, column]):
        scan, searched = CodeScan(columns), [None] * len(columns)
        minima = scan.minima(query, radius=64, searched=searched)
        found = scan.nearest(query, minima[0], 3, radius=64, searched=searched)
        assert (len(found.positions), len(found.keys), found.complete) == (0, 0, True)
        assert scan.minima(query[:0], radius=64, searched=searched).shape == (0, 0)
    assert len(column.keys(query, np.zeros(0, np.int64))) == 0


def test_arrays_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="130"):
        CodeColumn(np.zeros((1, BLOCK), np.uint64), 130)
    column = CodeColumn(np.zeros((1, BLOCK), np.uint64), 5)
    query = ScanQueries.of(np.zeros((1, 8), np.uint8), None)
    with pytest.raises(ValueError, match="4"):
        CodeScan([column]).minima(query, radius=64, searched=[np.ones(4, np.bool_)])


FIRST_SEARCHES = """
from concurrent.futures import ThreadPoolExecutor
import os
import signal

import numpy as np
from xmodal.index import scan as module
from xmodal.index.scan import CodeColumn, CodeScan, ScanQueries
packed = np.random.default_rng(0).integers(0, 256, (1000, 16), dtype=np.uint8)
scan, weights = CodeScan([CodeColumn.of(packed)]), np.ones((1, 128), np.uint8)
module.WORDS_PER_THREAD = module.WORDS_PER_CHUNK = 1
module.processors = lambda: 3
def search(row):
    query = ScanQueries.of(packed[row : row + 1], weights if row % 2 else None)
    return scan.minima(query, radius=128, searched=[None]).min()
with ThreadPoolExecutor(8) as pool:
    assert list(pool.map(search, range(32))) == [0] * 32
if hasattr(os, "fork"):  # the threads of a forked process are its own
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        signal.alarm(20)
        assert search(1) == 0
        os._exit(0 if search(2) == 0 else 1)
"""


def test_first_searches_of_a_process_may_be_concurrent(tmp_path: Path) -> None:
    """The kernel is compiled in memory: no home folder and no writable folder is needed."""
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    command = [sys.executable, "-c", FIRST_SEARCHES]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    assert not list(tmp_path.iterdir())

"""CodeScan: nearest codes and keys, compared with bits that are counted one by one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xmodal.index.scan import CodeScan, ScanQueries
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
        scan, scanned = CodeScan(packed), ScanQueries.of(queries, weights)
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
                options = {"radius": radius, "searched": scan.mask(mask)}
                minima = scan.minima(scanned, **options)[row]
                positions, found, complete = scan.nearest(query, minima, count, **options)
                assert np.array_equal(found, keys[positions])
                assert complete or len(found) >= count
                limit = np.sort(keys[allowed])[: count if count < n else n].max(initial=0)
                within = allowed & (complete | (keys <= limit))
                assert np.array_equal(positions, np.flatnonzero(within))
            places = rng.integers(0, n, 9)
            assert np.array_equal(scan.keys(query, places), keys[places])
            assert np.array_equal(query.hamming(scan.keys(query, places)), hamming[places])


def test_threads_share_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = random_codes(np.random.default_rng(0), 3 * BLOCK + 5, 64)
    scan, queries = CodeScan(packed), ScanQueries.of(packed[:4], None)
    options = {"radius": 64, "searched": scan.mask(None)}
    expected = scan.minima(queries, **options)
    monkeypatch.setattr("xmodal.index.scan.WORDS_PER_THREAD", 1)
    for threads in (2, 3, 7):
        monkeypatch.setattr("xmodal.index.scan._processors", lambda threads=threads: threads)
        assert np.array_equal(scan.minima(queries, **options), expected)


def test_no_codes_and_no_queries() -> None:
    scan, queries = (
        CodeScan(np.zeros((0, 8), np.uint8)),
        ScanQueries.of(np.zeros((1, 8), np.uint8), None),
    )
    options = {"radius": 64, "searched": scan.mask(None)}
    minima = scan.minima(queries, **options)
    positions, keys, complete = scan.nearest(queries, minima[0], 3, **options)
    assert (len(positions), len(keys), complete) == (0, 0, True)
    assert len(scan.keys(queries, np.zeros(0, np.int64))) == 0
    assert scan.minima(queries[:0], **options).shape == (0, 0)


FIRST_SEARCHES = """
from concurrent.futures import ThreadPoolExecutor
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from xmodal.index.scan import CodeScan, ScanQueries
packed = np.random.default_rng(0).integers(0, 256, (1000, 16), dtype=np.uint8)
scan, weights = CodeScan(packed), np.ones((1, 128), np.uint8)
def search(row):
    query = ScanQueries.of(packed[row : row + 1], weights if row % 2 else None)
    return scan.minima(query, radius=128, searched=scan.mask(None)).min()
with ThreadPoolExecutor(8) as pool:
    assert list(pool.map(search, range(32))) == [0] * 32
"""


def test_first_searches_of_a_process_may_be_concurrent(tmp_path: Path) -> None:
    """The kernel is compiled in memory: no home folder and no writable folder is needed."""
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    command = [sys.executable, "-c", FIRST_SEARCHES]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    assert not list(tmp_path.iterdir())

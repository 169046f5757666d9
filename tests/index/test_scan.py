"""CodeScan: nearest codes and keys, compared with bits that are counted one by one."""

from __future__ import annotations

import numpy as np
import pytest

from xmodal.index.scan import CodeScan, ScanQuery, run_threads
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
        query = packed[rng.integers(n)] ^ np.packbits(rng.random(bits) < 0.2)
        weights = rng.integers(0, 16, bits).astype(np.uint8) if weighted else None
        keys, hamming = expected_keys(packed, query, weights)
        scan, scanned = CodeScan(packed), ScanQuery.of(query, weights)
        searched = rng.random(n) < rng.choice([0.02, 0.5, 1])
        for count, radius, mask in (
            (1, bits, None),
            (3, bits, searched),
            (2 * n, bits, searched),
            (1, int(np.median(hamming)), None),
            (4, 0, searched),
        ):
            allowed = (hamming <= radius) & (True if mask is None else mask)
            positions, found, complete = scan.nearest(
                scanned, count, radius=radius, searched=scan.mask(mask), threads=1 + n % 2
            )
            assert (np.diff(positions) > 0).all()
            assert np.array_equal(found, keys[positions])
            assert len(found) >= min(count, allowed.sum())
            within = keys <= (keys[allowed].max(initial=0) if complete else found.max())
            assert np.array_equal(positions, np.flatnonzero(allowed & within))
        places = rng.integers(0, n, 9)
        assert np.array_equal(scan.keys(scanned, places), keys[places])
        assert np.array_equal(scanned.hamming(scan.keys(scanned, places)), hamming[places])


def test_no_codes() -> None:
    scan, query = CodeScan(np.zeros((0, 8), np.uint8)), ScanQuery.of(np.zeros(8, np.uint8), None)
    positions, keys, complete = scan.nearest(query, 3, radius=64, searched=scan.mask(None))
    assert (len(positions), len(keys), complete) == (0, 0, True)
    assert len(scan.keys(query, np.zeros(0, np.int64))) == 0


def test_threads_return_results_in_order_and_raise() -> None:
    assert run_threads(lambda item: item + 1, range(5), 2) == [1, 2, 3, 4, 5]
    with pytest.raises(ZeroDivisionError):
        run_threads(lambda item: 1 // item, [1, 0], 2)

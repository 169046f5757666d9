"""Features that are read by rows: equal to the matrix in memory, unread until they are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xmodal.features.rows import FeatureRows, unit_float16

RNG = np.random.default_rng(0)
MATRIX = RNG.standard_normal((50, 6)).astype(np.float32)


def mapped(folder: Path, matrix: np.ndarray) -> np.ndarray:
    np.save(folder / "matrix.npy", matrix)
    return np.load(folder / "matrix.npy", mmap_mode="r")  # type: ignore[no-any-return]


@pytest.mark.parametrize("scaled", [False, True])
def test_rows_of_a_file_equal_those_in_memory(tmp_path: Path, scaled: bool) -> None:
    rows = FeatureRows(mapped(tmp_path, MATRIX), scaled=scaled)
    expected = unit_float16(MATRIX) if scaled else MATRIX
    assert rows.dtype == expected.dtype and rows.shape == (50, 6)
    mask = RNG.random(50) < 0.3
    for chosen in (slice(3, 20), np.array([7, 7, 0]), mask, slice(None)):
        np.testing.assert_array_equal(rows[chosen], expected[chosen])
        np.testing.assert_array_equal(rows.take(chosen)[:], expected[chosen])
    np.testing.assert_array_equal(rows.take(np.arange(40)).take([3, 39])[:], expected[[3, 39]])
    np.testing.assert_array_equal(np.asarray(rows), expected)


def test_blocks_are_all_rows_in_order() -> None:
    rows = FeatureRows(MATRIX).take(np.arange(49, -1, -2))
    parts = list(rows.blocks(4))
    assert [part.start for part, _ in parts] == list(range(0, 25, 4))
    np.testing.assert_array_equal(np.concatenate([x for _, x in parts]), MATRIX[49::-2])


def test_absent_and_unusable_rows_are_zeros() -> None:
    matrix = MATRIX.copy()
    matrix[2, 1], matrix[4, 0] = np.nan, np.inf
    rows = FeatureRows(matrix, np.array([0, -1, 2, 4]), scaled=True)
    assert rows[:].any(axis=1).tolist() == [True, False, False, False]
    nothing = FeatureRows(np.zeros((0, 3), np.float16), np.array([-1, -1]))
    assert nothing[:].shape == (2, 3) and not nothing[:].any()


def test_rows_of_rows_keep_their_own_numbers() -> None:
    inner = FeatureRows(MATRIX).take(np.array([9, 8, 7]))
    outer = FeatureRows(inner).take(np.array([2, 0]))
    np.testing.assert_array_equal(outer[:], MATRIX[[7, 9]])
    assert outer.rows is not None and outer.rows.tolist() == [2, 0]


@pytest.mark.parametrize("length", [1e-4, 1.0, 700.0])
def test_float16_rows_of_any_length_are_scaled(length: float) -> None:
    directions = MATRIX / np.linalg.norm(MATRIX, axis=1, keepdims=True)
    scaled = unit_float16((length * directions).astype(np.float16))
    np.testing.assert_allclose(scaled, directions, atol=2e-3)

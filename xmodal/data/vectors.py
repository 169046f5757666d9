"""Matrices of feature vectors: reading of .npy files, checks, rows scaled to unit length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmodal import linear_models
from xmodal.errors import DataError

Matrix = npt.NDArray[np.generic]
"""(n, dim) of float16, float32 or float64; may be memory-mapped."""
CHUNK = 8192
"""Number of rows that are converted to float64 at a time."""
NPY_MAGIC = b"\x93NUMPY"
"""First bytes of a .npy file."""


def read_features(path: str | Path) -> Matrix:
    """Memory-map the matrix (n, dim) of a .npy file, one vector a row; check shape and type.

    Raises DataError unless the file holds a matrix of float16, float32 or float64; pickled objects
    are not loaded.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise DataError(f"{file} {what}, expected a .npy file of vectors, one a row")
    with open(file, "rb") as opened:
        start = opened.read(len(NPY_MAGIC))
    if start != NPY_MAGIC:
        if start[:2] == b"PK":
            raise DataError(
                f"{file} is an archive of arrays (.npz), expected a .npy file of vectors, one a "
                "row: save one array with np.save; features of pictures and texts are for "
                "xmodal train"
            )
        raise DataError(f"{file} is no .npy file, expected a .npy file of vectors, one a row")
    try:
        loaded: Matrix = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{file} is not a readable .npy file of numbers ({reason})") from None
    _check_shape_and_type(loaded, str(file))
    return loaded


def check_features(features: Matrix) -> None:
    """Raise DataError unless ``features`` is a matrix of finite floating-point numbers."""
    _check_shape_and_type(features, "the features")
    for start in range(0, len(features), CHUNK):
        with np.errstate(over="ignore"):
            chunk = features[start : start + CHUNK].astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(chunk).all(axis=1))
        if len(bad):
            raise DataError(
                f"row {start + bad[0]} of the features has NaN, infinity or a number beyond "
                "float32, expected finite numbers: remove such rows"
            )


def _check_shape_and_type(features: Matrix, name: str) -> None:
    if features.ndim != 2:
        raise DataError(f"{name} has shape {features.shape}, expected (n, dim): one vector a row")
    if not features.size:
        raise DataError(f"{name} has shape {features.shape}, expected at least one number")
    if features.dtype.kind != "f" or features.dtype.itemsize > 8:
        raise DataError(f"{name} is {features.dtype}, expected float16, float32 or float64")


def unit_rows(features: Matrix, rows: npt.NDArray[np.int64]) -> linear_models.Matrix:
    """Return the rows with the indices ``rows``, (r,), as (r, dim) float64 of unit length."""
    parts = [_unit(features[rows[k : k + CHUNK]]) for k in range(0, len(rows), CHUNK)]
    return np.concatenate(parts)


def unit_chunks(features: Matrix) -> Iterator[linear_models.Matrix]:
    """Yield all rows in order as float64 of unit length, at most ``CHUNK`` rows at a time."""
    for start in range(0, len(features), CHUNK):
        yield _unit(features[start : start + CHUNK])


def _unit(rows: Matrix) -> linear_models.Matrix:
    """Scale rows to unit length without overflow of their squares; zero rows are unchanged."""
    values = rows.astype(np.float64)
    largest = np.abs(values).max(axis=1, keepdims=True)
    return linear_models.unit(values / np.where(largest > 0, largest, 1))

"""Matrices of vectors: read from a file, checked, their rows scaled to length 1, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmodal import linear_models
from xmodal.errors import DataError

Matrix = npt.NDArray[np.generic]
CHUNK = 8192  # rows that are in memory as float64
MAGIC = b"\x93NUMPY"


def read_features(path: str | Path) -> Matrix:
    """The array in a .npy file, not yet in memory, checked in shape and type.

    Raises DataError for anything but a matrix of float16, float32 or float64; nothing is unpickled.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "is not there"
        raise DataError(f"{file} {what}, expected a .npy file of vectors, one a row")
    with open(file, "rb") as opened:
        start = opened.read(len(MAGIC))
    if start != MAGIC:
        what = "an .npz of several arrays: save the one" if start[:2] == b"PK" else "something else"
        raise DataError(f"{file} is {what}, expected a .npy file of vectors, one a row")
    try:
        loaded: Matrix = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{file} is not a readable .npy file of numbers ({reason})") from None
    _check_kind(loaded, str(file))
    return loaded


def check_features(features: Matrix) -> None:
    """Raise DataError unless ``features`` is a matrix of finite floating-point numbers."""
    _check_kind(features, "the features")
    for start in range(0, len(features), CHUNK):
        with np.errstate(over="ignore"):
            chunk = features[start : start + CHUNK].astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(chunk).all(axis=1))
        if len(bad):
            raise DataError(
                f"row {start + bad[0]} of the features has NaN, infinity or a number beyond "
                "float32: leave such rows out, or find out where they come from"
            )


def _check_kind(features: Matrix, name: str) -> None:
    if features.ndim != 2:
        raise DataError(f"{name} has shape {features.shape}, expected (n, dim): one vector a row")
    if not features.size:
        raise DataError(f"{name} has shape {features.shape}: there is nothing in it")
    if features.dtype.kind != "f" or features.dtype.itemsize > 8:
        raise DataError(f"{name} is {features.dtype}, expected float16, float32 or float64")


def unit_rows(features: Matrix, rows: npt.NDArray[np.int64]) -> linear_models.Matrix:
    """Those rows, of length 1."""
    parts = [_unit(features[rows[k : k + CHUNK]]) for k in range(0, len(rows), CHUNK)]
    return np.concatenate(parts)


def unit_chunks(features: Matrix) -> Iterator[linear_models.Matrix]:
    """All rows in order, of length 1."""
    for start in range(0, len(features), CHUNK):
        yield _unit(features[start : start + CHUNK])


def _unit(rows: Matrix) -> linear_models.Matrix:
    """Rows of length 1, however large or small their numbers are; a zero row stays."""
    values = rows.astype(np.float64)
    largest = np.abs(values).max(axis=1, keepdims=True)
    return linear_models.unit(values / np.where(largest > 0, largest, 1))

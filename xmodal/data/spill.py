"""Matrices that are computed once and read by rows; large ones are in a file without a name.

The system writes pages of such a file to disk where memory is short, and removes the file when the
process ends.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from xmodal.errors import DataError
from xmodal.linear_models import Matrix, unit
from xmodal.operating_system import reserve

BLOCK_ROWS = 1 << 14
"""Rows that are computed at once."""
SPILL_BYTES = 1 << 28
"""Bytes from which a matrix is in a file."""


@contextmanager
def spill_file(size: int, folder: Path | None = None) -> Iterator[IO[bytes]]:
    """Context with an empty file for ``size`` bytes, which are reserved on the disk.

    The file has no name; memory maps of it outlive the context. ``folder``: by default that of the
    system for temporary files. Raises DataError if the disk has no space.
    """
    place = Path(tempfile.gettempdir()) if folder is None else folder
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            reserve(file.fileno(), size)  # a map of a full disk ends the process
            yield file
    except OSError as error:
        raise DataError(
            f"{place} has no space for {size / 1e9:.1f} GB of features ({error.strerror}): free "
            "it, or name another folder with --cache, or with TMPDIR"
        ) from None


def zeros(
    shape: tuple[int, ...], dtype: npt.DTypeLike, folder: Path | None = None
) -> npt.NDArray[Any]:
    """Return zeros, in a file of ``folder`` from ``SPILL_BYTES`` on; see :func:`spill_file`."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < SPILL_BYTES:
        return np.zeros(shape, dtype)
    with spill_file(size, folder) as file:
        return np.memmap(file, dtype, "r+", shape=shape).view(np.ndarray)


def take_rows(rows: npt.NDArray[Any], order: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return the rows at ``order``."""
    taken = zeros((len(order), *rows.shape[1:]), rows.dtype)
    for start in range(0, len(order), BLOCK_ROWS):
        taken[start : start + BLOCK_ROWS] = rows[order[start : start + BLOCK_ROWS]]
    return taken


def unit_rows(rows: Matrix) -> Matrix:
    """Return rows of length 1, (n, d) float32, as :func:`xmodal.linear_models.unit`."""
    if rows.size * 4 < SPILL_BYTES:
        return unit(rows)
    scaled = zeros(rows.shape, np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        scaled[start : start + BLOCK_ROWS] = unit(rows[start : start + BLOCK_ROWS])
    return scaled

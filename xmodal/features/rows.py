"""Feature matrices that are read by rows, from memory or from a memory-mapped file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]
Rows = slice | npt.NDArray[Any] | list[int]

BLOCK_ROWS = 1 << 14
"""Rows that are read at once."""


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """``n`` rows of a matrix ``stored`` (m, d), which are read when they are needed.

    ``rows`` (n,): row of the matrix for each row; -1 is a row of zeros. None: all rows in order.
    ``scaled``: rows are read as float16 of length 1; rows that are not finite become zeros.
    """

    stored: Array | FeatureRows
    rows: Int64 | None = None
    scaled: bool = False

    @classmethod
    def of(cls, features: Features) -> FeatureRows:
        """Return features that are read by rows."""
        return features if isinstance(features, FeatureRows) else cls(features)

    def __len__(self) -> int:
        return len(self.stored) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Number and length of the rows."""
        return len(self), self.stored.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number format of the rows that are read."""
        return np.dtype(np.float16) if self.scaled else self.stored.dtype

    def __getitem__(self, rows: Rows) -> Array:
        """Read the rows of a slice, at positions or of a mask."""
        if self.rows is None:
            return self._read(np.asarray(self.stored[rows]))
        places = self.rows[rows]
        if not len(self.stored) or (absent := places < 0).all():
            return np.zeros((len(places), self.stored.shape[1]), self.dtype)
        found = self._read(self.stored[np.maximum(places, 0)])
        if absent.any():
            found[absent] = 0
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Read all rows, for functions of numpy on data that fits into memory."""
        if copy is False:
            raise ValueError("rows cannot be read without a copy")
        return np.asarray(self[:], dtype)

    def take(self, rows: Rows) -> FeatureRows:
        """Return the rows of a slice, at positions or of a mask, without reading them."""
        places = np.arange(len(self.stored)) if self.rows is None else self.rows
        return replace(
            self,
            rows=places[np.asarray(rows, np.int64)] if isinstance(rows, list) else places[rows],
        )

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[tuple[slice, Array]]:
        """Read all rows, ``size`` at a time; yield their positions and the rows."""
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self[part]

    def _read(self, values: Array) -> Array:
        if not self.scaled:
            return values
        scaled = unit_float16(values)
        wrong = ~np.isfinite(scaled).all(axis=1)
        if wrong.any():
            scaled[wrong] = 0
        return scaled


Features = Array | FeatureRows
"""A matrix in memory, or one that is read by rows."""


def unit_float16(values: Array) -> Array:
    """Scale rows to length 1, in float16; zero rows stay zero, infinite ones become NaN.

    Lengths of float16 rows are computed in float32: their squares leave the range of float16 above
    255 and below 0.0003, and numpy is slower in float16.
    """
    wide = values.astype(np.promote_types(values.dtype, np.float32))
    with np.errstate(invalid="ignore", over="ignore"):
        wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
        scaled: Array = wide.astype(np.float16)
    return scaled

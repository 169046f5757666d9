"""Columns: named arrays of a segment, in memory or in a file (:mod:`.column_file`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]


class Columns(Protocol):
    """Named arrays that are checked before their content is used.

    ``whole`` and ``rows`` raise IndexFailure for damaged content and, of a file, for an unknown
    name.
    """

    @property
    def names(self) -> Set[str]:
        """Names of the columns."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """What is stored with the columns, as JSON."""

    def whole(self, name: str) -> Array:
        """Return a column after all of its content was checked."""

    def rows(self, name: str, starts: Int64, ends: Int64) -> Array:
        """Return a column after its rows ``starts[i] : ends[i]``, for all i, were checked.

        Other rows of it must not be used.
        """


@dataclass(frozen=True, eq=False)
class MemoryColumns:
    """Columns in memory, which need no checks."""

    arrays: Mapping[str, Array]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> Set[str]:
        """Names of the columns."""
        return self.arrays.keys()

    def whole(self, name: str) -> Array:
        """Return a column."""
        return self.arrays[name]

    def rows(self, name: str, starts: Int64, ends: Int64) -> Array:
        """Return a column."""
        return self.arrays[name]


class Chunks(NamedTuple):
    """A column that is written in parts: ``shape`` in all, and arrays that follow each other.

    ``parts``: arrays of ``dtype`` in C order, whose elements are together those of the column.
    """

    dtype: npt.DTypeLike
    shape: tuple[int, ...]
    parts: Iterable[Array]


Column = Array | Chunks
"""A column as :func:`.column_file.write_columns` accepts it."""

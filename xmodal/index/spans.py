"""Spans: positions that follow each other in a column, for example the codes of a document."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


def positions_of(starts: Int64, ends: Int64) -> Int64:
    """Return ``starts[0], ..., ends[0] - 1, starts[1], ...``: the positions within spans."""
    counts = ends - starts
    if (counts == 1).all():
        return starts
    first = np.cumsum(counts) - counts
    positions: Int64 = np.arange(counts.sum()) + np.repeat(starts - first, counts)
    return positions

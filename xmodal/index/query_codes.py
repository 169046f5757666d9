"""QueryCodes: queries of an index with the numbers that rank better than codes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError
from xmodal.vectors import Int8, UInt8, query_weights, to_int8


@dataclass(frozen=True, eq=False)
class QueryCodes:
    """Codes of ``n`` queries, with weights of their bits and with vectors.

    ``weights``: (n, bits) uint8, 0 to 15; None searches by Hamming distance. ``vectors``: (n, dim)
    int8; None leaves out the second stage. Raises CodeError for arrays of another shape or type.
    """

    codes: BinaryCodes
    weights: UInt8 | None = None
    vectors: Int8 | None = None

    def __post_init__(self) -> None:
        n, weights, vectors = len(self.codes), self.weights, self.vectors
        if weights is not None and (
            weights.shape != (n, self.codes.bits) or weights.dtype != np.uint8
        ):
            raise CodeError(
                f"weights are {weights.dtype} of shape {weights.shape}, expected uint8 of shape "
                f"{(n, self.codes.bits)}"
            )
        if vectors is not None and (vectors.shape[:1] != (n,) or vectors.dtype != np.int8):
            raise CodeError(
                f"vectors are {vectors.dtype} of shape {vectors.shape}, expected int8 of shape "
                f"({n}, dim)"
            )

    @classmethod
    def of(cls, outputs: npt.NDArray[np.floating]) -> QueryCodes:
        """Return the queries of real-valued outputs (n, bits) of an encoder."""
        return cls(BinaryCodes.from_relaxed(outputs), query_weights(outputs), to_int8(outputs))

    @classmethod
    def concatenate(cls, parts: Sequence[QueryCodes]) -> QueryCodes:
        """Return the queries of all parts in order.

        Weights and vectors are kept if every part has them. Raises CodeError for an empty list of
        parts or for several widths.
        """
        codes = BinaryCodes.concatenate([part.codes for part in parts])
        weights = [part.weights for part in parts if part.weights is not None]
        vectors = [part.vectors for part in parts if part.vectors is not None]
        return cls(
            codes,
            np.concatenate(weights) if len(weights) == len(parts) else None,
            np.concatenate(vectors) if len(vectors) == len(parts) else None,
        )

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return self.codes.bits

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> QueryCodes:
        """Return the queries of a slice, or at positions."""
        return QueryCodes(
            self.codes[rows],
            None if self.weights is None else self.weights[rows],
            None if self.vectors is None else self.vectors[rows],
        )


def to_query_codes(queries: BinaryCodes | QueryCodes) -> QueryCodes:
    """Return the queries; codes alone are searched by Hamming distance."""
    return QueryCodes(queries) if isinstance(queries, BinaryCodes) else queries

"""Reference of weights and vectors: the two stages of a search in plain Python, code by code."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Ranked(NamedTuple):
    """What a search returns for a document; ``similarity`` as in ``Hit``."""

    id: str
    distance: int
    nearest: int
    similarity: float


@dataclass
class Document:
    """``bits``: one row of 0 and 1 per code. ``vectors``: one row of int8 per code, or None."""

    id: str
    bits: Array
    vectors: Array | None = None
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class Query:
    """``bits`` (width,); ``weights`` (width,) or None; ``vector`` (dim,) or None."""

    bits: Array
    weights: Array | None = None
    vector: Array | None = None

    def keys(self, document: Document) -> list[tuple[int, int, int]]:
        """Return weighted distance, Hamming distance and position of each code."""
        weights = np.ones(len(self.bits), int) if self.weights is None else self.weights
        return [
            (int(weights[code != self.bits].astype(int).sum()), int((code != self.bits).sum()), at)
            for at, code in enumerate(document.bits)
        ]

    def by_code(self, document: Document, radius: int | None = None) -> tuple[int, int, int] | None:
        """Return the smallest key within ``radius``, or None without any."""
        within = [key for key in self.keys(document) if radius is None or key[1] <= radius]
        return min(within, default=None)

    def measured(self, document: Document) -> Ranked:
        """Return the hit of a document that has codes."""
        if self.vector is not None and document.vectors is not None:
            cosines = [cosine(self.vector, vector) for vector in document.vectors]
            nearest = cosines.index(max(cosines))
            return Ranked(document.id, self.keys(document)[nearest][1], nearest, cosines[nearest])
        found = self.by_code(document)
        assert found is not None
        return self.without_vector(document, found)

    def without_vector(self, document: Document, key: tuple[int, int, int]) -> Ranked:
        """Return the hit of the first stage."""
        total = len(self.bits) if self.weights is None else int(self.weights.astype(int).sum())
        return Ranked(document.id, key[1], key[2], 1 - 2 * key[0] / total)


def search(
    documents: list[Document], query: Query, k: int, radius: int | None = None, window: int = 300
) -> list[Ranked]:
    """Return the best ``k`` documents."""
    keys = {each.id: query.by_code(each, radius) for each in documents}
    by_id = {each.id: each for each in documents}
    found = sorted((key[:2], id_) for id_, key in keys.items() if key is not None)
    if query.vector is None or all(each.vectors is None for each in documents):
        return [query.without_vector(by_id[id_], keys[id_]) for _, id_ in found[:k]]  # type: ignore[arg-type]
    last = found[: max(window, k)][-1][0] if found else None
    again = [query.measured(by_id[id_]) for key, id_ in found if last is not None and key <= last]
    return sorted(again, key=lambda hit: (-hit.similarity, hit.distance, hit.id))[:k]


def cosine(one: Array, other: Array) -> float:
    """Return the cosine of two vectors of int8."""
    a, b = one.astype(int).tolist(), other.astype(int).tolist()
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    lengths = sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return dot / lengths if lengths else 0.0

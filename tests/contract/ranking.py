"""Reference of weights and vectors: the two stages of a search in plain Python, code by code."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.index.contract import Hit
from xmodal.index.documents import DocumentBatch
from xmodal.index.query_codes import QueryCodes

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


def random_documents(
    rng: np.random.Generator, n: int, bits: int, dim: int, codes: tuple[int, ...]
) -> list[Document]:
    """Return documents of ``codes`` codes; codes and vectors are of few values, so many tie."""
    shared = rng.integers(0, 2, (4, bits))
    documents = []
    for number in range(n):
        size = rng.choice(codes)
        flipped = rng.random((size, bits)) < rng.choice([0, 0.02, 0.3])
        documents.append(
            Document(
                f"{number:03}",
                shared[rng.integers(4, size=size)] ^ flipped,
                rng.integers(-2, 3, (size, dim)).astype(np.int8),
                {"group": int(rng.integers(3))},
            )
        )
    return documents


def to_batch(documents: list[Document], vectors: bool = True) -> DocumentBatch:
    """Return the documents with these codes of images, and text codes that are all zero."""
    bits, n = documents[0].bits.shape[1], len(documents)
    columns = np.concatenate([each.vectors for each in documents]) if vectors else None
    return DocumentBatch.of(
        [each.id for each in documents],
        image=[BinaryCodes(np.packbits(each.bits, axis=1), bits) for each in documents],
        text=BinaryCodes(np.zeros((n, bits // 8), np.uint8), bits),
        image_vectors=columns,
        text_vectors=None if columns is None else np.zeros((n, columns.shape[1]), np.int8),
        fields=[each.fields for each in documents],
    )


def random_queries(
    rng: np.random.Generator, documents: list[Document], dim: int, kind: str
) -> tuple[list[Query], QueryCodes]:
    """Return the same queries for the reference and for the index."""
    coded = [each for each in documents if len(each.bits)]
    near = [coded[row].bits[0] for row in rng.integers(len(coded), size=3)]
    bits = np.array([code ^ (rng.random(len(code)) < 0.05) for code in near])
    weights = rng.integers(0, 16, bits.shape).astype(np.uint8)
    vectors = rng.integers(-127, 128, (3, dim)).astype(np.int8)
    vectors[2, 1:] = 0  # cosines of few values
    weighted, directed = kind in ("weights", "both"), kind in ("vectors", "both")
    queries = [
        Query(bits[row], weights[row] if weighted else None, vectors[row] if directed else None)
        for row in range(3)
    ]
    codes = BinaryCodes(np.packbits(bits, axis=1), bits.shape[1])
    return queries, QueryCodes(codes, weights if weighted else None, vectors if directed else None)


def ranked(hits: list[Hit]) -> list[Ranked]:
    """Return hits as the reference returns them."""
    assert all(hit.nearest is not None and hit.similarity is not None for hit in hits)
    return [Ranked(hit.id, hit.distance, hit.nearest, hit.similarity) for hit in hits]  # type: ignore[arg-type]

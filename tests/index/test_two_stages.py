"""HammingIndex with weights and vectors, compared with a reference in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract.ranking import Document, Query, Ranked, search

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError
from xmodal.index.contract import Hit
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal.index.query_codes import QueryCodes

KINDS = ["codes", "weights", "vectors", "both"]


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


def filled(documents: list[Document], bits: int, vectors: bool = True) -> HammingIndex:
    """Return an index whose image codes and vectors are those of the documents."""
    index = HammingIndex(bits)
    index.add(
        DocumentBatch.of(
            [each.id for each in documents],
            image=[BinaryCodes(np.packbits(each.bits, axis=1), bits) for each in documents],
            text=BinaryCodes(np.zeros((len(documents), bits // 8), np.uint8), bits),
            image_vectors=all_vectors(documents) if vectors else None,
            text_vectors=np.zeros((len(documents), all_vectors(documents).shape[1]), np.int8)
            if vectors
            else None,
            fields=[each.fields for each in documents],
        )
    )
    return index


def all_vectors(documents: list[Document]) -> np.ndarray:
    return np.concatenate([each.vectors for each in documents])  # type: ignore[misc]


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("codes", [(1,), (0, 1, 2, 5), (1, 300)])
@pytest.mark.parametrize("bits", [8, 64, 136, 384])
def test_search_equals_the_reference(kind: str, codes: tuple[int, ...], bits: int) -> None:
    rng = np.random.default_rng([bits, len(codes), len(kind)])
    n = 25 if 300 in codes else 300
    documents = random_documents(rng, n, bits, 6, codes)
    index = filled(documents, bits)
    queries, batch = random_queries(rng, documents, 6, kind)
    options: list[dict[str, Any]] = [
        {"k": 1, "window": 1},
        {"k": 10, "window": 20},
        {"k": 2 * n},
        {"k": 20, "window": 5, "radius": bits // 10},
        {"k": 5, "window": 30, "where": {"group": 1}},
        {"k": 5, "window": 30, "where": {"group": [0, 2]}, "radius": bits // 4},
    ]
    for chosen in options:
        found = index.search(batch, target="image", **chosen)
        group = chosen.pop("where", {"group": [0, 1, 2]})["group"]
        groups = group if isinstance(group, list) else [group]
        passing = [each for each in documents if each.fields["group"] in groups]
        assert list(map(ranked, found)) == [search(passing, query, **chosen) for query in queries]


@pytest.mark.parametrize("kind", KINDS)
def test_measured_documents_equal_the_reference(kind: str) -> None:
    rng = np.random.default_rng(5)
    documents = random_documents(rng, 50, 64, 6, (0, 1, 2, 5))
    [query, *_], batch = random_queries(rng, documents, 6, kind)
    ids = [each.id for each in documents[::-3]]
    found = filled(documents, 64).measure(batch[:1], [*ids, "unknown"], target="image")
    expected = {d.id: query.measured(d) for d in documents[::-3] if len(d.bits)}
    assert {id_: ranked([hit])[0] for id_, hit in found.items()} == expected
    assert all(hit.fields == documents[int(id_)].fields for id_, hit in found.items())


def test_index_without_vectors_uses_codes_and_weights_alone() -> None:
    rng = np.random.default_rng(6)
    documents = random_documents(rng, 60, 64, 6, (1, 2))
    index = filled(documents, 64, vectors=False)
    queries, batch = random_queries(rng, documents, 6, "both")
    assert index.dim is None
    for each in documents:
        each.vectors = None
    expected = [search(documents, query, 9) for query in queries]
    assert list(map(ranked, index.search(batch, 9, target="image"))) == expected


def test_all_that_tie_with_the_last_of_the_window_are_ordered_again() -> None:
    n = 40
    index = HammingIndex(8)
    vectors = np.zeros((n, 2), np.int8)
    vectors[:, 0], vectors[:, 1] = 1, range(n)  # the cosine with (0, 1) rises with the row
    packed = np.zeros((n, 1), np.uint8)
    packed[30:] = 1
    ids = [f"{row:02}" for row in range(n)]
    index.add(DocumentBatch.of(ids, image=BinaryCodes(packed, 8), image_vectors=vectors))
    query = QueryCodes(BinaryCodes.from_hex(["00"]), vectors=np.array([[0, 1]], np.int8))
    [hits] = index.search(query, 3, target="image", window=5)
    assert [hit.id for hit in hits] == ["29", "28", "27"]
    [hits] = index.search(query, 3, target="image", window=31)
    assert [hit.id for hit in hits] == ["39", "38", "37"]


def test_weights_that_are_all_zero_rank_by_hamming_distance() -> None:
    index = HammingIndex(8)
    index.add(["a", "b"], image=BinaryCodes.from_hex(["ff", "03"]))
    codes = BinaryCodes.from_hex(["00"])
    zero = QueryCodes(codes, weights=np.zeros((1, 8), np.uint8))
    assert index.search(zero, 2, target="image") == index.search(codes, 2, target="image")


def test_count_is_of_documents_with_a_code_that_pass_the_filters() -> None:
    index = HammingIndex(8)
    codes = BinaryCodes.from_hex(["00", "01"])
    index.add(["a", "b"], image=[codes, codes[:1]], fields=[{"x": 1}, {"x": 2}])
    index.add(["c"], text=codes[:1], fields=[{"x": 1}])
    assert (index.count("image"), index.count("text")) == (2, 1)
    assert (index.count("image", {"x": 1}), index.count("text", {"x": 2})) == (1, 0)


def test_queries_of_another_dimension_are_rejected() -> None:
    documents = random_documents(np.random.default_rng(7), 3, 8, 6, (1,))
    index = filled(documents, 8)
    query = QueryCodes(BinaryCodes.from_hex(["00"]), vectors=np.ones((1, 5), np.int8))
    with pytest.raises(CodeError, match=r"5 dimensions.* 6"):
        index.search(query, 1, target="image")
    with pytest.raises(CodeError, match=r"5 dimensions.* 6"):
        index.measure(query, ["000"], target="image")

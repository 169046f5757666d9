"""HammingIndex with weights and vectors, compared with a reference in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract.ranking import Document, random_documents, random_queries, ranked, search, to_batch

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal.index.query_codes import QueryCodes

KINDS = ["codes", "weights", "vectors", "both"]


def filled(documents: list[Document], bits: int, vectors: bool = True) -> HammingIndex:
    """Return an index of these documents."""
    index = HammingIndex(bits)
    index.add(to_batch(documents, vectors))
    return index


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("codes", [(1,), (0, 1, 2, 5), (1, 300)])
@pytest.mark.parametrize("bits", [8, 64, 136, 384])
def test_search_equals_the_reference(kind: str, codes: tuple[int, ...], bits: int) -> None:
    rng = np.random.default_rng([bits, len(codes), len(kind)])
    n = 10 if 300 in codes else 150
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


def test_queries_of_another_dimension_are_rejected() -> None:
    documents = random_documents(np.random.default_rng(7), 3, 8, 6, (1,))
    index = filled(documents, 8)
    query = QueryCodes(BinaryCodes.from_hex(["00"]), vectors=np.ones((1, 5), np.int8))
    with pytest.raises(CodeError, match=r"5 dimensions.* 6"):
        index.search(query, 1, target="image")
    with pytest.raises(CodeError, match=r"5 dimensions.* 6"):
        index.measure(query, ["000"], target="image")

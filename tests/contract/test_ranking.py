"""Weights and vectors: every backend returns the same hits as the reference in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract.index_backend import Backend
from contract.ranking import (
    Document,
    Ranked,
    random_documents,
    random_queries,
    ranked,
    search,
    to_batch,
)

from xmodal.index.contract import Index

KINDS = ["codes", "weights", "vectors", "both"]
BITS, DIM = 64, 6


def check_equal(found: list[Ranked], expected: list[Ranked]) -> None:
    """Assert that rankings are equal; similarities that a server returns have 6 digits."""
    assert [hit[:3] for hit in found] == [hit[:3] for hit in expected]
    similarities = [hit.similarity for hit in expected]
    assert [hit.similarity for hit in found] == pytest.approx(similarities, abs=1e-5)


@pytest.fixture(scope="module", params=[(1,), (0, 1, 2, 5)], ids=["one code", "several codes"])
def filled(
    request: pytest.FixtureRequest, module_backend: Backend
) -> tuple[list[Document], Index, bool]:
    """Documents, their index, and whether it weighs all documents; no test changes the index."""
    rng = np.random.default_rng(len(request.param))
    documents = random_documents(rng, 60, BITS, DIM, request.param)
    index = module_backend.make(BITS)
    index.add(to_batch(documents))
    return documents, index, module_backend.weighs_all


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_vectors_equal_the_reference(
    filled: tuple[list[Document], Index, bool], kind: str
) -> None:
    documents, index, weighs_all = filled
    assert index.dim == DIM
    queries, batch = random_queries(np.random.default_rng(len(kind)), documents, DIM, kind)
    options: list[dict[str, Any]] = [
        {"k": 1, "window": 1},
        {"k": 5, "window": 8},
        {"k": 100},
        {"k": 10, "window": 5, "radius": BITS // 10},
        {"k": 5, "window": 8, "where": {"group": 1}},
    ]
    if kind in ("weights", "both") and not weighs_all:
        options = [{"k": 100}, {"k": 100, "where": {"group": 1}}]  # the window has all documents
    for chosen in options:
        found = index.search(batch, target="image", **chosen)
        group = chosen.pop("where", {}).get("group")
        passing = [each for each in documents if group in (None, each.fields["group"])]
        for hits, query in zip(found, queries, strict=True):
            check_equal(ranked(hits), search(passing, query, **chosen))


@pytest.mark.parametrize("kind", KINDS)
def test_measured_documents_are_those_of_the_reference(
    filled: tuple[list[Document], Index, bool], kind: str
) -> None:
    documents, index, _ = filled
    [query, *_], batch = random_queries(np.random.default_rng(5), documents, DIM, kind)
    asked = documents[::-3]
    found = index.measure(batch[:1], [*(each.id for each in asked), "unknown"], target="image")
    expected = {each.id: query.measured(each) for each in asked if len(each.bits)}
    assert set(found) == set(expected)
    for id_, hit in found.items():
        check_equal(ranked([hit]), [expected[id_]])


def test_count_is_of_documents_with_a_code_that_pass_the_filters(backend: Backend) -> None:
    documents = random_documents(np.random.default_rng(6), 20, BITS, DIM, (0, 1, 2))
    index = backend.make(BITS)
    index.add(to_batch(documents, vectors=False))
    assert index.dim is None
    coded = [each for each in documents if len(each.bits)]
    assert (index.count("image"), index.count("text")) == (len(coded), len(documents))
    expected = sum(each.fields["group"] == 1 for each in coded)
    assert index.count("image", {"group": 1}) == expected

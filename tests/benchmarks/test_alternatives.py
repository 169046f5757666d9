"""Figures of benchmarks/alternatives.py, on small codes and vectors."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from xmodal.index.query_codes import QueryCodes

pytest.importorskip("torch", reason="pip install -e '.[torch]'")

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("harness.picture_search")


def outputs(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)


@pytest.mark.parametrize("vectors", [False, True])
def test_the_own_document_is_found_first_and_a_distant_one_never(
    pictures: ModuleType, vectors: bool
) -> None:
    documents = QueryCodes.of(outputs(40))
    assert pictures.right_at(documents[:5], documents, vectors=vectors) == [1, 1, 1]
    opposite = QueryCodes.of(-outputs(40)[:5])
    assert pictures.right_at(opposite, documents, vectors=vectors) == [0, 0, 0]


def test_tied_documents_share_the_first_ranks(pictures: ModuleType) -> None:
    same = QueryCodes.of(np.ones((20, 64), np.float32))
    assert pictures.right_at(same, same, vectors=True) == pytest.approx([1 / 20, 5 / 20, 10 / 20])


def test_nearest_is_exact_for_int8_vectors(pictures: ModuleType) -> None:
    queries, documents = QueryCodes.of(outputs(3, 1)).vectors, QueryCodes.of(outputs(50)).vectors
    ids = [f"{row:02d}" for row in range(50)]
    wide = documents.astype(np.float64)
    for query, found in zip(queries, pictures.nearest(queries, documents, ids), strict=True):
        cosines = wide @ query / np.linalg.norm(wide, axis=1)
        assert found == {ids[row] for row in np.argsort(-cosines)[: pictures.K]}


def test_shares_of_hits(pictures: ModuleType) -> None:
    found = [["a", "b"], ["c", "d"]]
    assert pictures.right_hits(found, ["b", "x", "not a query"]) == [0, 0.5, 0.5]
    assert pictures.share_kept(found, [{"a", "b"}, {"c", "x"}]) == 0.75


def test_a_part_is_split_without_loss(pictures: ModuleType) -> None:
    rows = outputs(7)
    part = pictures.Part([str(n) for n in range(7)], QueryCodes.of(rows), rows)
    pieces = list(part.split(3))
    assert [len(piece.ids) for piece in pieces] == [3, 3, 1]
    joined = pictures.join(iter(pieces))
    assert joined.ids == part.ids and np.array_equal(joined.floats, rows)
    assert np.array_equal(joined.codes.vectors, part.codes.vectors)

"""Counts of distances: equal to a matrix of distances, and to the metrics that it gives."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError
from xmodal.evaluation import distance_counts
from xmodal.evaluation.distance_counts import BLOCK, DistanceCounter, own_distances
from xmodal.evaluation.metrics import (
    average_precision,
    groups_by_codes,
    groups_by_counts,
    groups_by_distances,
    ndcg_at,
    ndcg_from_counts,
    ndcg_from_gains,
    precision_at,
    recall_at,
    shared_labels,
)


def random_codes(rng: np.random.Generator, n: int, bits: int) -> BinaryCodes:
    return BinaryCodes(rng.integers(0, 256, (n, bits // 8), dtype=np.uint8), bits)


sizes = st.tuples(
    st.integers(0, 9),  # queries
    st.sampled_from([0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5]),  # documents
    st.sampled_from([8, 24, 64, 72, 256]),  # bits
    st.sampled_from([0, 1, 3, 64, 65, 130]),  # classes
)


@settings(deadline=None, max_examples=60)
@given(sizes, st.floats(0, 0.6), st.integers(0, 2**32))
def test_counts_equal_those_of_a_matrix_of_distances(
    size: tuple[int, int, int, int], share: float, seed: int
) -> None:
    q, n, bits, classes = size
    rng = np.random.default_rng(seed)
    queries, documents = random_codes(rng, q, bits), random_codes(rng, n, bits)
    of_queries, of_documents = rng.random((q, classes)) < share, rng.random((n, classes)) < share
    counts = DistanceCounter(documents, of_documents).counts(queries, of_queries)
    distances, shared = queries.distances(documents), shared_labels(of_queries, of_documents)
    expected = np.zeros_like(counts)
    for row in range(q):
        np.add.at(expected[row], (shared[row].astype(int), distances[row]), 1)
    assert (counts == expected).all()
    assert counts.shape[2] == bits + 1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 120), st.sampled_from([8, 16]), st.integers(1, 40))
def test_metrics_of_counts_equal_those_of_a_matrix_of_relevance(
    seed: int, n: int, bits: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    queries, documents = random_codes(rng, 6, bits), random_codes(rng, n, bits)
    of_queries, of_documents = rng.random((6, 5)) < 0.4, rng.random((n, 5)) < 0.3
    gains = shared_labels(of_queries, of_documents)
    counts = DistanceCounter(documents, of_documents).counts(queries, of_queries)
    expected, found = groups_by_codes(queries, documents, gains > 0), groups_by_counts(counts)
    for metric in (
        average_precision,
        lambda one: precision_at(one, k),
        lambda one: ndcg_at(one, k),
    ):
        assert np.array_equal(metric(expected), metric(found), equal_nan=True)
    graded = ndcg_from_gains(groups_by_codes(queries, documents, gains), gains, k)
    assert ndcg_from_counts(counts, k) == pytest.approx(graded, abs=1e-12, nan_ok=True)


def test_groups_by_distances_equal_a_matrix_of_relevance() -> None:
    rng = np.random.default_rng(3)
    queries, documents = random_codes(rng, 20, 16), random_codes(rng, 300, 16)
    rows = np.stack([rng.choice(300, 4, replace=False) for _ in range(20)])
    relevance = np.zeros((20, 300), bool)
    np.put_along_axis(relevance, rows, True, axis=1)
    distances = np.take_along_axis(queries.distances(documents), rows, axis=1).astype(np.int64)
    found = groups_by_distances(DistanceCounter(documents).counts(queries), distances)
    expected = groups_by_codes(queries, documents, relevance)
    assert (recall_at(found, 9) == recall_at(expected, 9)).all()
    assert (average_precision(found) == average_precision(expected)).all()


def test_counts_of_chunks_are_those_of_all_queries() -> None:
    rng = np.random.default_rng(4)
    queries, counter = random_codes(rng, 50, 64), DistanceCounter(random_codes(rng, 90, 64))
    with patch.object(distance_counts, "MAX_CELLS", 500):
        parts = list(counter.chunks(50))
    assert len(parts) > 5 and parts[0].start == 0 and parts[-1].stop == 50
    whole = counter.counts(queries)
    assert (np.concatenate([counter.counts(queries[rows]) for rows in parts]) == whole).all()


def test_own_distances_are_the_diagonal() -> None:
    rng = np.random.default_rng(5)
    one, two = random_codes(rng, 30, 40), random_codes(rng, 30, 40)
    assert (own_distances(one, two) == np.diag(one.distances(two))).all()


def test_other_widths_and_labels_are_refused() -> None:
    rng = np.random.default_rng(6)
    counter = DistanceCounter(random_codes(rng, 5, 16), np.ones((5, 3), bool))
    with pytest.raises(CodeError, match="16"):
        counter.counts(random_codes(rng, 2, 24))
    with pytest.raises(ValueError, match="shape"):
        counter.counts(random_codes(rng, 2, 16), np.ones((2, 4), bool))
    with pytest.raises(ValueError, match="5"):
        DistanceCounter(random_codes(rng, 5, 16), np.ones((4, 3), bool))

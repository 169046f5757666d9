"""Tie-aware metrics against values by hand, brute force over all orders, and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise, permutations
from math import isnan, log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from xmodal.codes import BinaryCodes
from xmodal.evaluation.metrics import (
    TieGroups,
    average_precision,
    by_radius,
    cosine_distances,
    expected_rank,
    groups_by_codes,
    groups_by_values,
    hit_at,
    mean,
    ndcg_at,
    ndcg_from_gains,
    neighbour_recall,
    precision_at,
    recall_at,
    shared_labels,
)

QUICK = settings(deadline=None, max_examples=60)
EXACT = {"rel": 1e-12, "abs": 1e-12}


def groups(distances: Sequence[float], relevance: Sequence[Any]) -> TieGroups:
    """Groups of one query."""
    return groups_by_values(np.array([distances], float), np.array([relevance]))


def one(values: np.ndarray) -> float:
    [value] = values.tolist()
    return float(value)


# ---- by hand ---------------------------------------------------------------------------------

# Distances 0 | 1 1 | 2; the first and one of the middle two are relevant.
HAND = groups([0, 1, 1, 2], [True, True, False, False])


def test_hand_average_precision() -> None:
    # The second relevant item is at rank 2 or 3: precision 2/2 or 2/3 there.
    assert one(average_precision(HAND)) == pytest.approx((1 / 1 + (2 / 2 + 2 / 3) / 2) / 2, **EXACT)
    # Three items at one distance, two of them relevant: ranks {1,2}, {1,3}, {2,3}.
    tied = groups([5, 5, 5], [True, True, False])
    orders = [(1 / 1 + 2 / 2) / 2, (1 / 1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2]
    assert one(average_precision(tied)) == pytest.approx(sum(orders) / 3, **EXACT)


def test_hand_average_precision_without_ties() -> None:
    ranked = groups([1, 2, 3, 4, 5], [True, False, True, False, True])
    assert one(average_precision(ranked)) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3, **EXACT)


def test_hand_precision_and_recall() -> None:
    assert one(precision_at(HAND, 1)) == 1 / 1
    assert one(precision_at(HAND, 2)) == (1 + 1 * 1 / 2) / 2  # one of the two tied at rank 2
    assert one(precision_at(HAND, 3)) == pytest.approx(2 / 3, **EXACT)
    assert one(precision_at(HAND, 10)) == 2 / 10  # divided by k, not by the number of items
    assert one(recall_at(HAND, 2)) == (1 + 1 / 2) / 2
    assert one(recall_at(HAND, 3)) == one(recall_at(HAND, 99)) == 2 / 2


def test_hand_ndcg() -> None:
    ideal = 1 / log2(2) + 1 / log2(3)
    got = 1 / log2(2) + (1 / log2(3) + 1 / log2(4)) / 2
    assert one(ndcg_at(HAND, 4)) == pytest.approx(got / ideal, **EXACT)
    assert one(ndcg_at(HAND, 2)) == pytest.approx((1 + (1 / log2(3)) / 2) / ideal, **EXACT)
    gains = np.array([[3.0, 0.0, 1.0]])
    graded = groups([7, 2, 2], gains[0].tolist())
    got = (0 + 1) / 2 * (1 / log2(2) + 1 / log2(3)) + 3 / log2(4)
    ideal = 3 / log2(2) + 1 / log2(3) + 0 / log2(4)
    assert one(ndcg_from_gains(graded, gains, 3)) == pytest.approx(got / ideal, **EXACT)


def test_hand_rank_of_the_first_relevant_item() -> None:
    assert one(expected_rank(HAND)) == 1
    # Two items before; then 4 tied, 1 relevant: ranks 3, 4, 5, 6 are equally likely.
    late = groups([0, 1, 2, 2, 2, 2, 3], [False, False, True, False, False, False, True])
    assert one(expected_rank(late)) == (3 + 4 + 5 + 6) / 4
    # Three at one distance, 2 relevant: the first is at 1, 1 or 2.
    assert one(expected_rank(groups([0, 0, 0], [True, True, False]))) == (1 + 1 + 2) / 3


def test_hand_probability_of_a_hit() -> None:
    # The first item is relevant: certain from k = 1 on.
    assert [one(hit_at(HAND, k)) for k in (1, 2, 9)] == [1, 1, 1]
    # Ranks 2 to 4 are tied and two of the three items are relevant.
    tied = groups([0, 1, 1, 1, 2], [False, True, True, False, True])
    assert [one(hit_at(tied, k)) for k in (1, 2, 3, 4)] == pytest.approx([0, 2 / 3, 1, 1], **EXACT)


def test_hand_groups_of_codes() -> None:
    queries = BinaryCodes.from_hex(["00", "ff"])
    database = BinaryCodes.from_hex(["00", "01", "80", "ff"])
    made = groups_by_codes(queries, database, np.array([[1, 1, 0, 0], [0, 0, 0, 1]], dtype=bool))
    assert made.total.tolist() == [[1, 2, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 2, 1]]
    assert made.gain.tolist() == [[1, 1, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0]]
    assert made.relevant.tolist() == [2, 1]
    assert made.binary


# ---- by brute force over all orders ----------------------------------------------------------

Ranked = list[Any]
"""Relevance in ranked order."""


def naive_ap(ranked: Ranked) -> float:
    at = [rank for rank, relevant in enumerate(ranked, 1) if relevant]
    return sum(found / rank for found, rank in enumerate(at, 1)) / len(at)


def naive_dcg(ranked: Ranked, k: int) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(ranked[:k], 1))


def naive_ndcg(ranked: Ranked, k: int) -> float:
    return naive_dcg(ranked, k) / naive_dcg(sorted(ranked, reverse=True), k)


def over_all_orders(
    distances: Sequence[float], relevance: Sequence[Any], metric: Callable[[Ranked], float]
) -> float:
    """Mean of a metric over every order that the distances allow."""
    values = [
        metric([relevance[at] for at in order])
        for order in permutations(range(len(distances)))
        if all(distances[a] <= distances[b] for a, b in pairwise(order))
    ]
    return sum(values) / len(values)


LISTS = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n).filter(any),
    )
)


@QUICK
@given(LISTS)
def test_binary_metrics_are_means_over_all_orders(lists: tuple[list[int], list[bool]]) -> None:
    distances, relevance = lists
    made = groups(distances, relevance)

    def brute(metric: Callable[[Ranked], float]) -> Any:
        return pytest.approx(over_all_orders(distances, relevance, metric), **EXACT)

    assert one(average_precision(made)) == brute(naive_ap)
    assert one(expected_rank(made)) == brute(lambda ranked: ranked.index(True) + 1)
    for k in (1, 2, 3, 6, 9):
        assert one(precision_at(made, k)) == brute(lambda ranked, k=k: sum(ranked[:k]) / k)
        assert one(recall_at(made, k)) == brute(lambda ranked, k=k: sum(ranked[:k]) / sum(ranked))
        assert one(ndcg_at(made, k)) == brute(lambda ranked, k=k: naive_ndcg(ranked, k))
        assert one(hit_at(made, k)) == brute(lambda ranked, k=k: float(any(ranked[:k])))


@settings(QUICK, max_examples=25)
@given(LISTS, st.data())
def test_graded_ndcg_is_its_mean_over_all_orders(
    lists: tuple[list[int], list[bool]], data: st.DataObject
) -> None:
    distances, relevance = lists
    gains = [data.draw(st.sampled_from([0.5, 1, 2, 3])) if yes else 0 for yes in relevance]
    made = groups(distances, gains)
    for k in (1, 3, 9):
        brute = over_all_orders(distances, gains, lambda ranked, k=k: naive_ndcg(ranked, k))
        got = one(ndcg_from_gains(made, np.array([gains]), k))
        assert got == pytest.approx(brute, **EXACT)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 1), (7, 3), (7, 7), (10, 4)])
def test_constant_codes_score_the_mean_over_random_orders(n: int, m: int) -> None:
    code = BinaryCodes(np.zeros((1, 2), np.uint8), 16)
    database = BinaryCodes(np.zeros((n, 2), np.uint8), 16)
    relevance = np.arange(n)[None] < m
    made = groups_by_codes(code, database, relevance)
    orders = [[at in places for at in range(n)] for places in combinations(range(n), m)]
    random = sum(map(naive_ap, orders)) / len(orders)
    assert one(average_precision(made)) == pytest.approx(random, **EXACT)
    for k in (1, n):
        assert one(precision_at(made, k)) == pytest.approx(m / n, **EXACT)
    assert one(recall_at(made, 1)) == pytest.approx(1 / n, **EXACT)


# ---- other implementations and invariances ---------------------------------------------------


def random_codes(seed: int, bits: int = 16) -> tuple[BinaryCodes, BinaryCodes, np.ndarray]:
    """Queries, a database whose codes tie often, graded relevance 0..3 (0 half of the time)."""
    rng = np.random.default_rng(seed)
    queries = BinaryCodes.from_relaxed(rng.standard_normal((12, bits)))
    database = BinaryCodes.from_relaxed(rng.standard_normal((150, bits)))
    gains = np.maximum(0, rng.integers(-3, 4, size=(12, 150)))
    return queries, database, gains


@pytest.mark.parametrize("k", [1, 10, 150, 400])
def test_ndcg_agrees_with_scikit_learn(k: int) -> None:
    queries, database, gains = random_codes(1)
    scores = -queries.distances(database).astype(float)
    graded = ndcg_from_gains(groups_by_codes(queries, database, gains), gains, k)
    assert mean(graded) == pytest.approx(ndcg_score(gains, scores, k=k), rel=1e-12)
    binary = ndcg_at(groups_by_codes(queries, database, gains > 1), k)
    assert mean(binary) == pytest.approx(ndcg_score(gains > 1, scores, k=k), rel=1e-12)


def test_ap_without_ties_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    distances = rng.permuted(np.tile(np.arange(200.0), (20, 1)), axis=1)
    relevance = rng.random((20, 200)) < 0.1
    got = average_precision(groups_by_values(distances, relevance))
    want = [average_precision_score(r, -d) for r, d in zip(relevance, distances, strict=True)]
    assert got == pytest.approx(want, rel=1e-12)


def all_metrics(made: TieGroups) -> np.ndarray:
    """Every binary metric at some cuts, one row each."""
    cuts = (1, 5, 40, 150)
    at = [metric(made, k) for metric in (precision_at, recall_at, ndcg_at) for k in cuts]
    return np.array([average_precision(made), expected_rank(made), *at])


def test_metrics_do_not_depend_on_the_order_of_the_database() -> None:
    queries, database, gains = random_codes(3)
    order = np.random.default_rng(4).permutation(len(database))
    before = groups_by_codes(queries, database, gains > 1)
    after = groups_by_codes(queries, database[order], gains[:, order] > 1)
    assert np.array_equal(before.total, after.total)
    assert np.array_equal(all_metrics(before), all_metrics(after))
    distances = queries.distances(database).astype(float)
    values = groups_by_values(distances[:, order], gains[:, order] > 1)
    assert all_metrics(values) == pytest.approx(all_metrics(before), **EXACT)


@pytest.mark.parametrize("bits", [8, 16, 128])
@pytest.mark.parametrize("graded", [False, True])
def test_groups_by_values_equal_groups_by_codes(bits: int, graded: bool) -> None:
    queries, database, gains = random_codes(5, bits)
    relevance = gains if graded else gains > 1
    codes = groups_by_codes(queries, database, relevance)
    values = groups_by_values(queries.distances(database).astype(float), relevance)
    assert codes.binary == values.binary == (not graded)
    for row in range(len(queries)):
        occupied = codes.total[row] > 0
        size = occupied.sum()
        assert np.array_equal(codes.total[row][occupied], values.total[row][:size])
        assert np.array_equal(codes.gain[row][occupied], values.gain[row][:size])
        assert not values.total[row][size:].any()


def test_groups_by_codes_in_chunks_equal_single_queries() -> None:
    rng = np.random.default_rng(6)
    queries = BinaryCodes(rng.integers(0, 256, (5, 1), np.uint8), 8)
    database = BinaryCodes(rng.integers(0, 256, (600_000, 1), np.uint8), 8)  # 3 queries a chunk
    relevance = rng.random((5, len(database))) < 0.5
    together = groups_by_codes(queries, database, relevance)
    for row in range(5):
        alone = groups_by_codes(queries[row : row + 1], database, relevance[row : row + 1])
        assert np.array_equal(alone.total[0], together.total[row])
        assert np.array_equal(alone.gain[0], together.gain[row])


# ---- undefined values and errors -------------------------------------------------------------


def test_metrics_of_a_query_without_relevant_items_are_nan() -> None:
    distances = np.array([[0.0, 1, 1], [0, 1, 1]])
    relevance = np.array([[False, False, True], [False, False, False]])
    made = groups_by_values(distances, relevance)
    ap = average_precision(made)
    assert ap[0] == pytest.approx((1 / 2 + 1 / 3) / 2, **EXACT)
    for values in (ap, recall_at(made, 2), hit_at(made, 2), ndcg_at(made, 2), expected_rank(made)):
        assert np.isnan(values).tolist() == [False, True]
    assert mean(ap) == ap[0]
    assert precision_at(made, 2).tolist() == [1 / 4, 0]
    graded = groups_by_values(distances, relevance.astype(int))
    assert np.isnan(ndcg_from_gains(graded, relevance.astype(int), 2)).tolist() == [False, True]


def test_hand_precision_and_recall_by_radius() -> None:
    total = np.array([[0.0, 2, 1], [1, 0, 3], [1, 1, 1]])
    gain = np.array([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]])  # the last has no relevant item
    precision, recall = by_radius(TieGroups(total, gain))
    assert precision.tolist() == pytest.approx([1, (1 / 2 + 1) / 2, (2 / 3 + 1 / 4) / 2])
    assert recall.tolist() == pytest.approx([(0 + 1) / 2, (1 / 2 + 1) / 2, 1])


def test_precision_by_radius_is_nan_without_items_in_the_radius() -> None:
    precision, recall = by_radius(TieGroups(np.array([[0.0, 2]]), np.array([[0.0, 1]])))
    assert np.isnan(precision).tolist() == [True, False]
    assert recall.tolist() == [0, 1]
    nothing = by_radius(TieGroups(np.ones((1, 2)), np.zeros((1, 2))))
    assert np.isnan(np.stack(nothing)).all()


def test_metrics_of_empty_input_are_nan() -> None:
    assert isnan(mean(np.array([])))
    assert isnan(mean(np.array([np.nan])))
    none = groups_by_codes(
        BinaryCodes.from_hex(["00"]), BinaryCodes.empty(8), np.zeros((1, 0), dtype=bool)
    )
    for values in (average_precision(none), recall_at(none, 3), hit_at(none, 3)):
        assert isnan(one(values))


@pytest.mark.parametrize("k", [0, -1])
def test_metrics_refuse_k_below_one(k: int) -> None:
    for metric in (precision_at, recall_at, hit_at, ndcg_at):
        with pytest.raises(ValueError, match=f"k is {k}"):
            metric(HAND, k)
    with pytest.raises(ValueError, match=f"k is {k}"):
        ndcg_from_gains(HAND, np.ones((1, 4)), k)


def test_binary_metrics_refuse_graded_relevance() -> None:
    graded = groups([0, 1], [2, 0])
    for metric in (average_precision, expected_rank):
        with pytest.raises(ValueError, match="graded relevance"):
            metric(graded)
    for cut in (precision_at, recall_at, hit_at, ndcg_at):
        with pytest.raises(ValueError, match="graded relevance"):
            cut(graded, 1)
    with pytest.raises(ValueError, match="graded relevance"):
        by_radius(graded)


def test_tie_groups_refuse_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(1, 3\)"):
        TieGroups(np.zeros((1, 2)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        TieGroups(np.zeros(2), np.zeros(2))


# ---- labels and distances ------------------------------------------------------------------------


def test_shared_labels_are_counted() -> None:
    queries, database = np.array([[1, 1, 0]]), np.array([[1, 1, 1], [0, 1, 0], [0, 0, 1]])
    assert shared_labels(queries, database).tolist() == [[2, 1, 0]]
    assert shared_labels(queries.astype(bool), database.astype(bool)).tolist() == [[2, 1, 0]]


def test_cosine_distances_by_hand() -> None:
    queries = np.array([[1, 0], [0, 0]], np.float32)
    database = np.array([[2, 0], [0, 3], [-1, 0], [1, 1]], np.float32)
    expected = [[0, 1, 2, 1 - 0.5**0.5], [1, 1, 1, 1]]  # a zero row is at distance 1 from all
    assert cosine_distances(queries, database) == pytest.approx(np.array(expected), abs=1e-6)


# ---- recall of exact neighbours -----


def brute_force_recall(distances: list[int], near: list[int], cut: int) -> float:
    """Mean recall over all orders of the items that are sorted by distance."""
    orders = [
        order
        for order in permutations(range(len(distances)))
        if [distances[item] for item in order] == sorted(distances)
    ]
    shares = [len(set(order[:cut]) & set(near)) / len(near) for order in orders]
    return sum(shares) / len(shares)


@pytest.mark.parametrize("seed", range(6))
def test_neighbour_recall_is_the_mean_over_orders_of_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, database = (
        BinaryCodes.from_relaxed(rng.choice([-1, 1], (count, 8)) * (np.arange(8) < 3) - 0.5)
        for count in (3, 6)
    )
    near = np.stack([rng.permutation(6)[:3] for _ in range(3)])
    distances = queries.distances(database).tolist()
    for cut in (1, 2, 3, 6, 9):
        expected = [
            brute_force_recall(row, own, cut)
            for row, own in zip(distances, near.tolist(), strict=True)
        ]
        assert neighbour_recall(queries, database, near, cut) == pytest.approx(expected, abs=1e-12)


def test_neighbour_recall_by_hand() -> None:
    query = BinaryCodes.from_hex(["00"])
    database = BinaryCodes.from_hex(["00", "01", "02", "ff"])
    near = np.array([[0, 1]])
    assert neighbour_recall(query, database, near, 2).tolist() == [(1 + 1 / 2) / 2]
    assert neighbour_recall(query, database, near, 3).tolist() == [(1 + 1) / 2]
    assert np.isnan(neighbour_recall(query, database, near[:, :0], 2)).all()

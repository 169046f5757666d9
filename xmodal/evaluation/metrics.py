"""Tie-aware retrieval metrics: exact expectations over all orders of items at equal distance.

A code of b bits has b + 1 distances, so most items are tied, and a metric of one sorted order
depends on the sort. Here items at equal distance form a group, a query is represented by the
histogram of its groups, and a metric is the mean over all orders within the groups, in closed form.

McSherry and Najork, "Computing information retrieval performance measures efficiently in the
presence of tied scores", ECIR 2008. Their expectation of precision, with N items and P relevant
items before a group of n items, of which m are relevant: the item at position j = 1..n of the group
is relevant with probability m/n, and the expected precision at a relevant item there is

    (P + 1 + (j-1)(m-1)/(n-1)) / (N + j).

All functions are vectorised over queries. Without ties the values equal those of trec_eval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.evaluation.distance_counts import Counts, DistanceCounter, own_distances
from xmodal.linear_models import Matrix, unit

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TieGroups:
    """Rankings of q queries as g groups of tied items, nearest first.

    ``total`` (q, g): number of items. ``gain`` (q, g): sum of relevance; the number of relevant
    items if relevance is ``binary``.
    """

    total: Floats
    gain: Floats
    binary: bool = True

    def __post_init__(self) -> None:
        if self.total.shape != self.gain.shape or self.total.ndim != 2:
            raise ValueError(
                f"total has shape {self.total.shape}, gain {self.gain.shape}: expected (q, g) both"
            )

    @property
    def relevant(self) -> Floats:
        """Sum of relevance over the database, (q,); 0 for a query without a relevant item."""
        return np.asarray(self.gain.sum(axis=1))


def groups_by_codes(
    queries: BinaryCodes, database: BinaryCodes, relevance: npt.NDArray[np.generic]
) -> TieGroups:
    """Group the database by Hamming distance; ``relevance`` (q, n) is bool or graded.

    Raises ValueError for relevance of another shape.
    """
    _check_shape(relevance, (len(queries), len(database)))
    levels = queries.bits + 1
    binary = relevance.dtype == np.bool_
    total = np.zeros((len(queries), levels))
    gain = np.zeros((len(queries), levels))
    step = max(1, (1 << 21) // max(1, len(database)))
    for start in range(0, len(queries), step):
        chunk = slice(start, start + step)
        distance = queries[chunk].distances(database)
        rows = len(distance)
        if binary:
            # One bincount: irrelevant items in cells 0..levels-1, relevant ones in the next levels.
            cell = distance + np.uint16(levels) * relevance[chunk].astype(np.uint16)
            cell = cell + (np.arange(rows, dtype=np.int64) * 2 * levels)[:, None]
            count = np.bincount(cell.ravel(), minlength=rows * 2 * levels)
            split = count.reshape(rows, 2, levels)
            gain[chunk] = split[:, 1]
            total[chunk] = split.sum(axis=1)
        else:
            cell = (distance + (np.arange(rows, dtype=np.int64) * levels)[:, None]).ravel()
            size = rows * levels
            total[chunk] = np.bincount(cell, minlength=size).reshape(rows, levels)
            weights = relevance[chunk].astype(np.float64).ravel()
            gain[chunk] = np.bincount(cell, weights, minlength=size).reshape(rows, levels)
    return TieGroups(total, gain, binary)


def groups_by_counts(counts: Counts, *, graded: bool = False) -> TieGroups:
    """Group documents by their counts (q, gains, levels), as :class:`DistanceCounter` returns them.

    Relevance is the number of shared labels if ``graded``, else whether there is one.
    """
    total = counts.sum(axis=1, dtype=np.float64)
    if graded:
        weights = np.arange(counts.shape[1], dtype=np.float64)
        return TieGroups(total, np.einsum("qgl,g->ql", counts, weights), binary=False)
    return TieGroups(total, counts[:, 1:].sum(axis=1, dtype=np.float64))


def groups_by_labels(
    queries: BinaryCodes,
    database: BinaryCodes,
    labels: npt.NDArray[np.bool_],
    database_labels: npt.NDArray[np.bool_],
) -> TieGroups:
    """Group the database by Hamming distance; relevant are documents that share a label.

    ``labels`` (q, c), ``database_labels`` (n, c): multi-hot. Memory: 16 bytes a query and distance.
    """
    counter = DistanceCounter(database, database_labels)
    total, gain = (np.zeros((len(queries), queries.bits + 1)) for _ in range(2))
    for rows in counter.chunks(len(queries)):
        groups = groups_by_counts(counter.counts(queries[rows], labels[rows]))
        total[rows], gain[rows] = groups.total, groups.gain
    return TieGroups(total, gain)


def groups_by_distances(counts: Counts, relevant: npt.NDArray[np.integer]) -> TieGroups:
    """Group documents by their counts (q, 1, levels); ``relevant`` (q, r): their distances.

    Each row of ``relevant`` has the distances of the relevant documents of one query.
    """
    q, _, levels = counts.shape
    cell = relevant + (np.arange(q, dtype=np.int64) * levels)[:, None]
    gain = np.bincount(cell.ravel(), minlength=q * levels).reshape(q, levels)
    return TieGroups(counts[:, 0].astype(np.float64), gain.astype(np.float64))


def groups_of_pairs(queries: BinaryCodes, database: BinaryCodes) -> TieGroups:
    """Group the database for queries of which row i has one relevant document, row i, (q, 2).

    The groups are the documents nearer than the relevant one, and those at its distance.
    """
    counter, own = DistanceCounter(database), own_distances(queries, database)
    total = np.zeros((len(queries), 2))
    for rows in counter.chunks(len(queries)):
        counts = counter.counts(queries[rows])[:, 0].astype(np.int64)
        place = own[rows, None]
        tied = np.take_along_axis(counts, place, axis=1)[:, 0]
        nearer = np.take_along_axis(np.cumsum(counts, axis=1), place, axis=1)[:, 0] - tied
        total[rows] = np.stack([nearer, tied], axis=1)
    return TieGroups(total, np.broadcast_to([0.0, 1.0], total.shape))


def groups_by_values(
    distances: npt.NDArray[np.floating], relevance: npt.NDArray[np.generic]
) -> TieGroups:
    """Group the database by real-valued ``distances`` (q, n); only equal values are tied.

    ``relevance`` (q, n) is bool or graded. Raises ValueError for relevance of another shape.
    """
    q, n = distances.shape
    _check_shape(relevance, (q, n))
    order = np.argsort(distances, axis=1, kind="stable")
    sorted_distances = np.take_along_axis(distances, order, axis=1)
    sorted_gain = np.take_along_axis(relevance, order, axis=1).astype(np.float64)
    starts = np.ones((q, n), dtype=np.int64)
    starts[:, 1:] = sorted_distances[:, 1:] != sorted_distances[:, :-1]
    cell = (np.cumsum(starts, axis=1) - 1 + (np.arange(q) * n)[:, None]).ravel()
    total = np.bincount(cell, minlength=q * n).astype(np.float64).reshape(q, n)
    gain = np.bincount(cell, sorted_gain.ravel(), minlength=q * n).reshape(q, n)
    return TieGroups(np.asarray(total), np.asarray(gain), relevance.dtype == np.bool_)


def cosine_distances(queries: Matrix, database: Matrix) -> Matrix:
    """Return 1 - cosine, (q, n); a zero row has distance 1 to every row."""
    return cosine_distances_of_units(unit(queries), unit(database))


def cosine_distances_of_units(queries: Matrix, database: Matrix) -> Matrix:
    """Return 1 - cosine, (q, n), of rows of length 1 or 0."""
    return np.asarray(1 - queries @ database.T)


def average_precision(groups: TieGroups) -> Floats:
    """Return the expected AP over the whole database, (q,); NaN without a relevant item.

    The sum of (m/n) (P + 1 + (j-1)(m-1)/(n-1)) / (N + j) over j = 1..n (McSherry and Najork, ECIR
    2008), in closed form by harmonic numbers H:
    (m/n) [(P+1) (H(N+n) - H(N)) + (m-1)/(n-1) (n - (N+1) (H(N+n) - H(N)))].
    Raises ValueError for graded relevance.
    """
    _check_binary(groups, "average precision")
    n, m = groups.total, groups.gain
    before, relevant_before = _before(n), _before(m)
    size = int(n.sum(axis=1).max(initial=0))
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, size + 1))])
    spread = harmonic[(before + n).astype(np.int64)] - harmonic[before.astype(np.int64)]
    slope = np.divide(m - 1, n - 1, out=np.zeros_like(n), where=n > 1)
    share = np.divide(m, n, out=np.zeros_like(n), where=n > 0)
    inner = (relevant_before + 1) * spread + slope * (n - (before + 1) * spread)
    return _divide((share * inner).sum(axis=1), groups.relevant)


def precision_at(groups: TieGroups, k: int) -> Floats:
    """Return the expected precision at ``k``, (q,); the divisor is k, as in trec_eval."""
    _check_binary(groups, "precision")
    return _gain_at(groups, k) / k


def recall_at(groups: TieGroups, k: int) -> Floats:
    """Return the expected recall at ``k``, (q,); NaN without a relevant item."""
    _check_binary(groups, "recall")
    return _divide(_gain_at(groups, k), groups.relevant)


def neighbour_recall(
    queries: BinaryCodes, database: BinaryCodes, nearest: npt.NDArray[np.integer], cut: int
) -> Floats:
    """Return the expected recall at ``cut`` of exact neighbours by Hamming distance, (q,).

    ``nearest`` (q, k): rows of the database that are the exact neighbours of each query in the
    space that was compressed. NaN if k is 0.
    """
    counter, recall = DistanceCounter(database), np.empty(len(queries))
    for rows in counter.chunks(len(queries), nearest.shape[1] * database.packed.shape[1]):
        code, near = queries.packed[rows, None], database.packed[nearest[rows]]
        distances = np.bitwise_count(code ^ near).sum(axis=2, dtype=np.int64)
        recall[rows] = recall_at(groups_by_distances(counter.counts(queries[rows]), distances), cut)
    return recall


def ndcg_at(groups: TieGroups, k: int) -> Floats:
    """Return the expected NDCG@k of binary relevance, (q,); NaN without a relevant item.

    The discount is 1/log2(rank + 1). Each rank of a group has the mean gain of the group, as in
    scikit-learn. For graded relevance use :func:`ndcg_from_gains`: its ideal order needs the gain
    of each item. Raises ValueError for graded relevance.
    """
    _check_binary(groups, "ndcg_at (for graded relevance use ndcg_from_gains)")
    ideal = _discounts(k)[np.minimum(groups.relevant, k).astype(np.int64)]
    return _divide(_discounted_gain(groups, k), ideal)


def ndcg_from_gains(groups: TieGroups, gains: npt.NDArray[np.generic], k: int) -> Floats:
    """Return the expected NDCG@k with linear gains, (q,); NaN where all gains are 0.

    ``gains`` (q, n): the relevance that ``groups`` was computed from.
    """
    return _graded_ndcg(groups, -np.sort(-gains.astype(np.float64), axis=1)[:, :k], k)


def ndcg_from_counts(counts: Counts, k: int) -> Floats:
    """Return the expected NDCG@k with the shared labels as gains; see :func:`ndcg_from_gains`.

    ``counts`` (q, gains, levels), as :class:`DistanceCounter` returns them.
    """
    gains = counts.shape[1]
    at_least = np.cumsum(counts.sum(axis=2, dtype=np.int64)[:, ::-1], axis=1)[:, ::-1]
    rank = np.arange(min(k, int(at_least[:, 0].max(initial=0))))
    best = np.zeros((len(counts), len(rank)))
    for gain in range(1, gains):
        best += rank < at_least[:, gain, None]
    return _graded_ndcg(groups_by_counts(counts, graded=True), best, k)


def _graded_ndcg(groups: TieGroups, best: Floats, k: int) -> Floats:
    """Return the expected NDCG@k; ``best`` (q, <= k): the largest gains in descending order."""
    ideal = best @ np.diff(_discounts(k))[: best.shape[1]]
    return _divide(_discounted_gain(groups, k), ideal)


def hit_at(groups: TieGroups, k: int) -> Floats:
    """Return the probability that a relevant item is among the first ``k``, (q,).

    NaN without a relevant item. If ``k`` cuts the first group with relevant items (m of its n
    items) after r of them, the probability is 1 - C(n - m, r) / C(n, r), since all orders are
    equally likely. This is the R@k of caption retrieval, where any own caption counts; the share
    of all relevant items is :func:`recall_at`. Raises ValueError for graded relevance.
    """
    _check_binary(groups, "the probability of a hit")
    _check_k(k)
    before, n, m = _first_relevant(groups)
    cut = np.clip(k - before, 0, n)
    miss = np.ones(len(n))
    for drawn in range(int(cut.max(initial=0))):
        factor = np.maximum(n - m - drawn, 0) / np.maximum(n - drawn, 1)
        miss *= np.where(drawn < cut, factor, 1.0)
    return np.where(groups.relevant > 0, 1 - miss, np.nan)


def expected_rank(groups: TieGroups) -> Floats:
    """Return the expected rank, from 1, of the first relevant item, (q,); NaN without one.

    In a group with m relevant of n items, the expected position of the first relevant one is
    (n + 1) / (m + 1).
    """
    _check_binary(groups, "the rank of the first relevant item")
    before, n, m = _first_relevant(groups)
    return np.where(groups.relevant > 0, before + (n + 1) / (m + 1), np.nan)


def mean(values: Floats) -> float:
    """Return the mean of the values that are not NaN, or NaN if there is none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def shared_labels(
    queries: npt.NDArray[np.generic], database: npt.NDArray[np.generic]
) -> npt.NDArray[np.float32]:
    """Return the number of shared labels, (q, n), of multi-hot labels (q, c) and (n, c)."""
    return np.asarray(queries.astype(np.float32) @ database.astype(np.float32).T)


def by_radius(groups: TieGroups) -> tuple[Floats, Floats]:
    """Return precision and recall of the items within each radius, (g,) each.

    Means over queries with a relevant item. The mean precision at a radius is over the queries that
    have an item within it, and NaN if there is no such query.
    """
    _check_binary(groups, "precision by radius")
    keep = groups.relevant > 0
    total, gain = (np.cumsum(counts[keep], axis=1) for counts in (groups.total, groups.gain))
    precision = np.divide(gain, total, out=np.zeros_like(gain), where=total > 0).sum(axis=0)
    recall = (gain / groups.relevant[keep, None]).sum(axis=0)
    queries = np.full_like(recall, keep.sum())
    return _divide(precision, (total > 0).sum(axis=0)), _divide(recall, queries)


def _first_relevant(groups: TieGroups) -> tuple[Floats, Floats, Floats]:
    """Return, (q,) each: the items before the first group with a relevant item, and its n and m.

    Without a relevant item the group is the first one.
    """
    first = np.argmax(groups.gain > 0, axis=1)
    rows = np.arange(len(first))
    n, m = groups.total[rows, first], groups.gain[rows, first]
    return _before(groups.total)[rows, first], n, m


def _before(counts: Floats) -> Floats:
    """Return the sum of counts over the groups before each group, (q, g)."""
    return np.asarray(np.cumsum(counts, axis=1) - counts)


def _divide(values: Floats, divisor: Floats) -> Floats:
    """Return the quotient, NaN where the divisor is 0."""
    return np.divide(values, divisor, out=np.full_like(values, np.nan), where=divisor > 0)


def _gain_at(groups: TieGroups, k: int) -> Floats:
    """Return the expected gain of the first k items, (q,); the gain of a cut group is prorated."""
    _check_k(k)
    included = np.clip(k - _before(groups.total), 0, groups.total)
    share = np.divide(included, groups.total, out=np.zeros_like(included), where=groups.total > 0)
    return np.asarray((share * groups.gain).sum(axis=1))


def _discounts(k: int) -> Floats:
    """Return the sum of the discounts of the first r ranks, for r = 0..k."""
    _check_k(k)
    return np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])


def _discounted_gain(groups: TieGroups, k: int) -> Floats:
    cumulated = _discounts(k)
    before = np.minimum(_before(groups.total), k).astype(np.int64)
    after = np.minimum(_before(groups.total) + groups.total, k).astype(np.int64)
    average = np.divide(
        groups.gain, groups.total, out=np.zeros_like(groups.gain), where=groups.total > 0
    )
    return np.asarray((average * (cumulated[after] - cumulated[before])).sum(axis=1))


def _check_shape(relevance: npt.NDArray[np.generic], shape: tuple[int, int]) -> None:
    if relevance.shape != shape:
        raise ValueError(f"relevance has shape {relevance.shape}, expected {shape}")


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")


def _check_binary(groups: TieGroups, metric: str) -> None:
    if not groups.binary:
        raise ValueError(f"{metric} got graded relevance, expected bool")

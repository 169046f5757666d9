"""Retrieval metrics under ties: exact expectations over all orders of equally distant items.

A code of b bits has b + 1 distances, so ties are the rule: any metric that leaves them to a sort
measures the sort. Here items at one distance form a group, a query is the histogram of its groups,
and each metric is its mean over every order within the groups, in closed form:

    N items and P relevant ones lie before a group of n items with m relevant; the item at position
    j = 1..n of the group is relevant with probability m/n, and then the expected precision there is
    (P + 1 + (j-1)(m-1)/(n-1)) / (N + j).

All functions are vectorised over queries. Where there are no ties they equal trec_eval's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TieGroups:
    """Ranked lists of ``q`` queries as groups of ties, nearest first.

    ``total`` (q, g): items in each group. ``gain`` (q, g): sum of relevance in each group; with
    binary relevance this is the number of relevant items. ``binary`` says whether it is.
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
        """Shape (q,): sum of relevance over the database; a query with 0 has nothing to find."""
        return np.asarray(self.gain.sum(axis=1))


def groups_by_codes(
    queries: BinaryCodes, database: BinaryCodes, relevance: npt.NDArray[np.generic]
) -> TieGroups:
    """Groups by Hamming distance; ``relevance`` has shape (queries, database), bool or graded."""
    _need_shape(relevance, (len(queries), len(database)))
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
            # One count does both: relevant items are counted in the second half of the levels.
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


def groups_by_values(
    distances: npt.NDArray[np.floating], relevance: npt.NDArray[np.generic]
) -> TieGroups:
    """Groups by real-valued distance, shape (q, n); only equal values tie."""
    q, n = distances.shape
    _need_shape(relevance, (q, n))
    order = np.argsort(distances, axis=1, kind="stable")
    sorted_distances = np.take_along_axis(distances, order, axis=1)
    sorted_gain = np.take_along_axis(relevance, order, axis=1).astype(np.float64)
    starts = np.ones((q, n), dtype=np.int64)
    starts[:, 1:] = sorted_distances[:, 1:] != sorted_distances[:, :-1]
    cell = (np.cumsum(starts, axis=1) - 1 + (np.arange(q) * n)[:, None]).ravel()
    total = np.bincount(cell, minlength=q * n).astype(np.float64).reshape(q, n)
    gain = np.bincount(cell, sorted_gain.ravel(), minlength=q * n).reshape(q, n)
    return TieGroups(np.asarray(total), np.asarray(gain), relevance.dtype == np.bool_)


def average_precision(groups: TieGroups) -> Floats:
    """Expected AP over all database points, shape (q,); NaN for a query with nothing relevant.

    Sums (m/n) (P + 1 + (j-1)(m-1)/(n-1)) / (N + j) over j = 1..n by harmonic numbers H:
    (m/n) [(P+1) (H(N+n) - H(N)) + (m-1)/(n-1) (n - (N+1) (H(N+n) - H(N)))].
    """
    _need_binary(groups, "average precision")
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
    """Expected precision among the first ``k``, shape (q,); divides by k, as trec_eval does."""
    _need_binary(groups, "precision")
    return _found_at(groups, k) / k


def recall_at(groups: TieGroups, k: int) -> Floats:
    """Expected share of the relevant items among the first ``k``; NaN where there are none."""
    _need_binary(groups, "recall")
    return _divide(_found_at(groups, k), groups.relevant)


def neighbours_kept(
    queries: BinaryCodes, database: BinaryCodes, nearest: npt.NDArray[np.integer], cut: int
) -> Floats:
    """Expected share of true neighbours among the first ``cut`` by Hamming distance, shape (q,).

    ``nearest`` (q, k): rows of the database that are the neighbours of each query in the space that
    was compressed. With ``cut`` = k this is recall@k of exact neighbours; NaN where k is 0.
    """
    kept = np.empty(len(queries))
    step = max(1, (1 << 24) // max(1, len(database)))
    for start in range(0, len(queries), step):
        chunk = slice(start, start + step)
        relevance = np.zeros((len(nearest[chunk]), len(database)), np.bool_)
        np.put_along_axis(relevance, nearest[chunk], True, axis=1)
        kept[chunk] = recall_at(groups_by_codes(queries[chunk], database, relevance), cut)
    return kept


def ndcg_at(groups: TieGroups, k: int) -> Floats:
    """Expected NDCG@k with linear gains and discount 1/log2(rank + 1); NaN where all gains are 0.

    A group's gain is spread evenly over its ranks (as scikit-learn does for ties). The ideal order
    is by gain, which needs the gains one by one: use :func:`ndcg_from_gains` for graded relevance.
    """
    _need_binary(groups, "ndcg_at (for graded relevance use ndcg_from_gains)")
    ideal = _discounts(k)[np.minimum(groups.relevant, k).astype(np.int64)]
    return _divide(_discounted_gain(groups, k), ideal)


def ndcg_from_gains(groups: TieGroups, gains: npt.NDArray[np.generic], k: int) -> Floats:
    """Expected NDCG@k for graded relevance; ``gains`` (q, n) are those that made ``groups``."""
    best = -np.sort(-gains.astype(np.float64), axis=1)[:, :k]
    ideal = best @ np.diff(_discounts(k))[: best.shape[1]]
    return _divide(_discounted_gain(groups, k), ideal)


def expected_rank(groups: TieGroups) -> Floats:
    """Expected rank (from 1) of the first relevant item, shape (q,); NaN where there is none.

    In the first group with m relevant of n items the first comes at (n + 1) / (m + 1) on average.
    """
    _need_binary(groups, "the rank of the first relevant item")
    first = np.argmax(groups.gain > 0, axis=1)
    rows = np.arange(len(first))
    n, m = groups.total[rows, first], groups.gain[rows, first]
    rank = _before(groups.total)[rows, first] + (n + 1) / (m + 1)
    return np.where(groups.relevant > 0, rank, np.nan)


def mean(values: Floats) -> float:
    """Mean over the queries that have something to find; NaN if none has."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def shared_labels(
    queries: npt.NDArray[np.generic], database: npt.NDArray[np.generic]
) -> npt.NDArray[np.float32]:
    """Number of labels that two items share, shape (q, n), from multi-hot rows (q, c), (n, c)."""
    return np.asarray(queries.astype(np.float32) @ database.astype(np.float32).T)


def code_health(codes: BinaryCodes) -> dict[str, float]:
    """How well codes use their bits.

    ``distinct``: share of different codes. ``largest_bucket``: share of items on the most
    common code. ``entropy``: mean entropy of a bit, in bits (1 is balanced). ``correlation``: mean
    absolute correlation of two bits (constant bits count as 0).
    """
    n = len(codes)
    if n == 0:
        return dict.fromkeys(("distinct", "largest_bucket", "entropy", "correlation"), float("nan"))
    _, counts = np.unique(codes.packed, axis=0, return_counts=True)
    bits = codes.to_bits().astype(np.float64)
    p = bits.mean(axis=0)
    inside = np.clip(p, 1e-12, 1 - 1e-12)
    entropy = -(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside))
    centred = (bits - p) / np.sqrt(np.maximum(p * (1 - p), 1e-12))
    correlation = np.abs(centred.T @ centred / n)
    off = correlation[~np.eye(codes.bits, dtype=np.bool_)]
    return {
        "distinct": len(counts) / n,
        "largest_bucket": float(counts.max()) / n,
        "entropy": float(entropy.mean()),
        "correlation": float(off.mean()),
    }


def by_radius(groups: TieGroups) -> tuple[Floats, Floats]:
    """Precision and recall of all items within each radius, (g,) each: one point a group.

    Means over queries with something to find; precision over those that find anything at all so
    near, and NaN where none does.
    """
    _need_binary(groups, "precision by radius")
    keep = groups.relevant > 0
    total, gain = (np.cumsum(one[keep], axis=1) for one in (groups.total, groups.gain))
    precision = np.divide(gain, total, out=np.zeros_like(gain), where=total > 0).sum(axis=0)
    recall = (gain / groups.relevant[keep, None]).sum(axis=0)
    return _divide(precision, (total > 0).sum(axis=0)), _divide(
        recall, np.full_like(recall, keep.sum())
    )


def _before(counts: Floats) -> Floats:
    return np.asarray(np.cumsum(counts, axis=1) - counts)


def _divide(values: Floats, by: Floats) -> Floats:
    return np.divide(values, by, out=np.full_like(values, np.nan), where=by > 0)


def _found_at(groups: TieGroups, k: int) -> Floats:
    """Expected sum of gain among the first k: a group that k cuts counts by the share it shows."""
    _need_rank(k)
    shown = np.clip(k - _before(groups.total), 0, groups.total)
    share = np.divide(shown, groups.total, out=np.zeros_like(shown), where=groups.total > 0)
    return np.asarray((share * groups.gain).sum(axis=1))


def _discounts(k: int) -> Floats:
    """Sum of discounts of the first r ranks, for r = 0..k."""
    _need_rank(k)
    return np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])


def _discounted_gain(groups: TieGroups, k: int) -> Floats:
    cumulated = _discounts(k)
    before = np.minimum(_before(groups.total), k).astype(np.int64)
    after = np.minimum(_before(groups.total) + groups.total, k).astype(np.int64)
    average = np.divide(
        groups.gain, groups.total, out=np.zeros_like(groups.gain), where=groups.total > 0
    )
    return np.asarray((average * (cumulated[after] - cumulated[before])).sum(axis=1))


def _need_shape(relevance: npt.NDArray[np.generic], shape: tuple[int, int]) -> None:
    if relevance.shape != shape:
        raise ValueError(f"relevance has shape {relevance.shape}, expected {shape}")


def _need_rank(k: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")


def _need_binary(groups: TieGroups, what: str) -> None:
    if not groups.binary:
        raise ValueError(f"{what} needs relevant or not (bool), got graded relevance")

"""Label protocol: codes and baselines on the same data, in both directions.

The main metric is the expected mAP over the whole database. A database item is relevant if it
shares a label with the query; queries without a relevant item are left out and counted. Instance
retrieval (R@k and median rank of the natural pair among the pairs of the query part) is computed
in addition; for several captions a picture see :mod:`xmodal.evaluation.captions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.data.names import take_names
from xmodal.data.spill import unit_rows
from xmodal.evaluation.baselines import Baseline, Ranked
from xmodal.evaluation.distance_counts import Counts, DistanceCounter
from xmodal.evaluation.metrics import (
    Floats,
    TieGroups,
    average_precision,
    cosine_distances_of_units,
    expected_rank,
    groups_by_counts,
    groups_by_distances,
    groups_by_values,
    groups_of_pairs,
    mean,
    ndcg_at,
    ndcg_from_counts,
    ndcg_from_gains,
    precision_at,
    recall_at,
    shared_labels,
)
from xmodal.evaluation.report import FIRST_ROWS, Figures
from xmodal.features.rows import FeatureRows, Features
from xmodal.linear_models import Matrix
from xmodal.modality import DIRECTIONS, Modality

PRECISION_CUTS = (1, 10, 50, 100)
NDCG_CUTS = (10, 100)
PAIR_CUTS = (1, 5, 10)
CHUNK_CELLS = 1 << 23
"""Cosines of queries and items that are computed at once."""
MAX_SORTED_CELLS = 1 << 30
"""Cosines of queries and items of one ranking that are computed in all; sorting 10,000,000 takes
about a second."""
Values = dict[str, Floats]
"""Metrics of each query, (q,), by name."""


@dataclass(frozen=True)
class Part:
    """Pairs of one part of the data (training, database or queries).

    ``features``: (n, d) by modality; ``labels``: (n, c) multi-hot bool; ``labelled``: (n,) bool;
    ``codes``: n codes by modality.
    """

    ids: Sequence[str]
    features: Mapping[Modality, Features]
    labels: npt.NDArray[np.bool_]
    labelled: npt.NDArray[np.bool_]
    codes: Mapping[Modality, BinaryCodes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, mask: npt.NDArray[np.bool_]) -> Part:
        """Return the pairs that ``mask`` (n,) selects."""
        return Part(
            take_names(self.ids, np.flatnonzero(mask)),
            {m: FeatureRows.of(features).take(mask) for m, features in self.features.items()},
            self.labels[mask],
            self.labelled[mask],
            {modality: codes[mask] for modality, codes in self.codes.items()},
        )


class Comparison(NamedTuple):
    """Figures by labels: ``rows`` as in :class:`~xmodal.evaluation.report.Report`, and facts."""

    rows: dict[str, dict[str, Figures]]
    facts: dict[str, Any]


def compare(
    baselines: Iterable[Baseline], database: Part, query: Part, *, name: str
) -> Comparison | None:
    """Evaluate the codes of ``query`` and ``database``, and baselines, by labels.

    ``name``: row of the codes. Unlabelled pairs are neither queries nor results. Returns None if no
    query shares a label with a pair of the database.
    """
    queries, searched = query.take(query.labelled), database.take(database.labelled)
    evaluator = Evaluator(queries, searched, query)
    findable, base_rate = evaluator.base_rate()
    if not findable:
        return None
    rows = {"chance": evaluator.chance(), name: evaluator.codes()}
    for baseline in baselines:
        rows[baseline.name] = evaluator.baseline(baseline)
    facts = {
        "queries": len(queries),
        "queries without anything relevant (left out)": len(queries) - findable,
        "database": len(searched),
        "relevant means": "shares a label",
        "base rate": round(base_rate, 4),
    }
    return Comparison({key: rows[key] for key in (*FIRST_ROWS, name, *rows) if key in rows}, facts)


class Evaluator:
    """Figures of rankings of ``database`` by ``query``, in both directions.

    An item is relevant if it shares a label with the query. ``pairs`` are the pairs of instance
    retrieval. Codes are compared by counts of distances (:mod:`xmodal.evaluation.distance_counts`),
    so no matrix of queries and items exists. Vectors are ranked by sorting, some queries at a time;
    with more than ``MAX_SORTED_CELLS`` distances evenly chosen queries are measured.
    """

    def __init__(self, query: Part, database: Part, pairs: Part) -> None:
        self.query, self.database, self.pairs = query, database, pairs
        self.graded = bool((query.labels.sum(axis=1) > 1).any())

    @cached_property
    def relevant(self) -> Counts:
        """Number of items by shared labels with each query, (q, gains)."""
        constant = _constant(len(self.query)), _constant(len(self.database))
        counter = DistanceCounter(constant[1], self.database.labels)
        parts = [
            counter.counts(constant[0][rows], self.query.labels[rows]).sum(axis=2)
            for rows in counter.chunks(len(self.query))
        ]
        return _stacked(parts)

    def base_rate(self) -> tuple[int, float]:
        """Return the number of queries with relevant items, and their mean share of relevant ones.

        The share is relative to the size of the database.
        """
        positive = self.relevant[:, 1:].sum(axis=1) / max(1, len(self.database))
        positive = positive[positive > 0]
        return len(positive), float(positive.mean()) if len(positive) else 0.0

    def chance(self) -> dict[str, Figures]:
        """Return the expectation over random orders: figures of constant codes."""
        n = len(self.pairs)
        counts = np.full((n, 1, 1), n, np.uint32)
        groups = groups_by_distances(counts, np.zeros((n, 1), np.int64))
        values = self._values(self.relevant[:, :, None])
        figures = {name: mean(of_query) for name, of_query in values.items()}
        figures |= _pair_figures(groups)
        return {f"{source}->{target}": dict(figures) for source, target in DIRECTIONS}

    def codes(self) -> dict[str, Figures]:
        """Return the figures of the codes of the parts."""
        return self._figures(self.query.codes, self.database.codes, self.pairs.codes)

    def baseline(self, baseline: Baseline) -> dict[str, Figures]:
        """Return the figures of a fitted baseline."""

        parts = (self.query, self.database, self.pairs)
        return self._figures(*(baseline.ranked(part.features) for part in parts))

    def _figures(self, query: Ranked, database: Ranked, pairs: Ranked) -> dict[str, Figures]:
        return {
            f"{source}->{target}": self._ranking_figures(query[source], database[target])
            | _pair_figures(_pair_groups(pairs[source], pairs[target]))
            for source, target in DIRECTIONS
        }

    def _ranking_figures(self, query: Any, database: Any) -> Figures:
        if isinstance(query, BinaryCodes):
            chunks = self._values_by_codes(query, database)
        else:
            chunks = self._values_by_cosine(unit_rows(query), unit_rows(database))
        return {metric: mean(np.concatenate(parts)) for metric, parts in _by_metric(chunks).items()}

    def _values_by_codes(self, query: BinaryCodes, database: BinaryCodes) -> Iterator[Values]:
        """Yield the metrics of some queries at a time."""
        counter = DistanceCounter(database, self.database.labels)
        for rows in counter.chunks(len(query)):
            yield self._values(counter.counts(query[rows], self.query.labels[rows]))

    def _values(self, counts: Counts) -> Values:
        """Return the metrics of queries by their counts (q, gains, levels)."""
        values = _binary_values(groups_by_counts(counts))
        if self.graded:
            values |= {f"NDCG@{k}": ndcg_from_counts(counts, k) for k in NDCG_CUTS}
        return values

    def _values_by_cosine(self, query: Matrix, database: Matrix) -> Iterator[Values]:
        """Yield the metrics of some queries at a time; the rows have length 1."""
        chosen = _chosen(len(query), len(database))
        for part in _chunks(len(chosen), len(database)):
            rows = chosen[part]
            gains = shared_labels(self.query.labels[rows], self.database.labels)
            distances = cosine_distances_of_units(query[rows], database)
            values = _binary_values(groups_by_values(distances, gains > 0))
            if self.graded:
                graded = groups_by_values(distances, gains)
                values |= {f"NDCG@{k}": ndcg_from_gains(graded, gains, k) for k in NDCG_CUTS}
            yield values


def _binary_values(groups: TieGroups) -> Values:
    """Return the metrics of queries whose relevance is binary."""
    findable = np.where(groups.relevant > 0, 1.0, np.nan)
    return {
        "mAP": average_precision(groups),
        **{f"P@{k}": precision_at(groups, k) * findable for k in PRECISION_CUTS},
        **{f"NDCG@{k}": ndcg_at(groups, k) for k in NDCG_CUTS},
    }


def _by_metric(chunks: Iterable[Values]) -> dict[str, list[Floats]]:
    """Return the values of all chunks by metric."""
    found: dict[str, list[Floats]] = {}
    for values in chunks:
        for metric, by_query in values.items():
            found.setdefault(metric, []).append(by_query)
    return found


def _pair_groups(query: Any, database: Any) -> TieGroups:
    """Return groups in which the other half of a pair is relevant, see :func:`groups_of_pairs`.

    For vectors the queries are chosen as for the other figures.
    """
    if isinstance(query, BinaryCodes):
        return groups_of_pairs(query, database)
    chosen, query, database = (
        _chosen(len(query), len(database)),
        unit_rows(query),
        unit_rows(database),
    )
    parts = []
    for part in _chunks(len(chosen), len(database)):
        rows = chosen[part]
        distances = cosine_distances_of_units(query[rows], database)
        own = distances[np.arange(len(rows)), rows][:, None]
        before = np.count_nonzero(distances < own, axis=1)
        parts.append(np.stack([before, np.count_nonzero(distances == own, axis=1)], axis=1))
    total = _stacked(parts).astype(np.float64)
    return TieGroups(total, np.broadcast_to([0.0, 1.0], total.shape))


def _pair_figures(groups: TieGroups) -> Figures:
    """Return recall and median rank of the natural pair."""
    figures = {f"pair R@{k}": float(recall_at(groups, k).mean()) for k in PAIR_CUTS}
    return figures | {"pair median rank": float(np.median(expected_rank(groups)))}


def _constant(count: int) -> BinaryCodes:
    return BinaryCodes(np.zeros((count, 1), np.uint8), 8)


def _stacked(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Concatenate rows; without a part there is none."""
    return np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)


def _chosen(queries: int, database: int) -> npt.NDArray[np.int64]:
    """Return all queries, or as many evenly spaced ones as ``MAX_SORTED_CELLS`` allows."""
    count = min(queries, max(1, MAX_SORTED_CELLS // max(1, database)))
    return np.linspace(0, queries - 1, count).astype(np.int64)


def _chunks(queries: int, database: int) -> Iterator[slice]:
    """Yield slices of queries of at most ``CHUNK_CELLS`` cells, to bound the memory."""
    step = max(1, CHUNK_CELLS // max(1, database))
    return (slice(start, min(start + step, queries)) for start in range(0, queries, step))

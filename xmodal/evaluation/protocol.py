"""Label protocol: codes and baselines on the same data, in both directions.

The main metric is the expected mAP over the whole database. A database item is relevant if it
shares a label with the query; queries without a relevant item are left out and counted. Instance
retrieval (R@k and median rank of the natural pair among the pairs of the query part) is computed
in addition; for several captions a picture see :mod:`xmodal.evaluation.captions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.evaluation.baselines import Baseline, Ranked
from xmodal.evaluation.metrics import (
    TieGroups,
    average_precision,
    cosine_distances,
    expected_rank,
    groups_by_codes,
    groups_by_values,
    mean,
    ndcg_at,
    ndcg_from_gains,
    precision_at,
    recall_at,
    shared_labels,
)
from xmodal.evaluation.report import FIRST_ROWS, Figures
from xmodal.modality import DIRECTIONS, MODALITIES, Modality

PRECISION_CUTS = (1, 10, 50, 100)
NDCG_CUTS = (10, 100)
PAIR_CUTS = (1, 5, 10)
CHUNK_CELLS = 1 << 23
"""Maximum number of (query, item) cells that are processed at once."""


@dataclass(frozen=True)
class Part:
    """Pairs of one part of the data (training, database or queries).

    ``features``: (n, d) by modality; ``labels``: (n, c) multi-hot bool; ``labelled``: (n,) bool;
    ``codes``: n codes by modality.
    """

    ids: list[str]
    features: Mapping[Modality, npt.NDArray[Any]]
    labels: npt.NDArray[np.bool_]
    labelled: npt.NDArray[np.bool_]
    codes: Mapping[Modality, BinaryCodes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, mask: npt.NDArray[np.bool_]) -> Part:
        """Return the pairs that ``mask`` (n,) selects."""
        return Part(
            [id_ for id_, selected in zip(self.ids, mask, strict=True) if selected],
            {modality: self.features[modality][mask] for modality in MODALITIES},
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
    retrieval. Queries are processed in chunks.
    """

    def __init__(self, query: Part, database: Part, pairs: Part) -> None:
        self.query, self.database, self.pairs = query, database, pairs
        self.graded = bool((query.labels.sum(axis=1) > 1).any())

    def base_rate(self) -> tuple[int, float]:
        """Return the number of queries with relevant items, and their mean share of relevant ones.

        The share is relative to the size of the database.
        """
        chunks = _chunks(len(self.query), len(self.database))
        # Without a query or an item there is no share.
        shares = [(self._gains(rows) > 0).mean(axis=1) for rows in chunks if len(self.database)]
        positive = np.concatenate(shares) if shares else np.zeros(0)
        positive = positive[positive > 0]
        return len(positive), float(positive.mean()) if len(positive) else 0.0

    def chance(self) -> dict[str, Figures]:
        """Return the expectation over random orders: figures of constant codes."""

        def constant(part: Part) -> Ranked:
            codes = BinaryCodes(np.zeros((len(part), 1), np.uint8), 8)
            return dict.fromkeys(MODALITIES, codes)

        return self._figures(*map(constant, (self.query, self.database, self.pairs)))

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
            | _pair_figures(pairs[source], pairs[target])
            for source, target in DIRECTIONS
        }

    def _ranking_figures(self, query: Any, database: Any) -> Figures:
        chunks: dict[str, list[npt.NDArray[np.float64]]] = {}
        for rows in _chunks(len(self.query), len(self.database)):
            gains = self._gains(rows)
            groups = _groups(query[rows], database, gains > 0)
            findable = np.where(groups.relevant > 0, 1.0, np.nan)
            values = {"mAP": average_precision(groups)}
            values |= {f"P@{k}": precision_at(groups, k) * findable for k in PRECISION_CUTS}
            graded = _groups(query[rows], database, gains) if self.graded else None
            for k in NDCG_CUTS:
                values[f"NDCG@{k}"] = (
                    ndcg_at(groups, k) if graded is None else ndcg_from_gains(graded, gains, k)
                )
            for metric, by_query in values.items():
                chunks.setdefault(metric, []).append(by_query)
        return {metric: mean(np.concatenate(parts)) for metric, parts in chunks.items()}

    def _gains(self, rows: slice) -> npt.NDArray[np.float32]:
        """Number of labels that every item shares with the queries ``rows``."""
        return shared_labels(self.query.labels[rows], self.database.labels)


def _pair_figures(query: Any, database: Any) -> Figures:
    """Recall and median rank of the natural pair; row i of both arguments is one pair."""
    ranks, recalls = [], []
    for rows in _chunks(len(query), len(database)):
        groups = _groups(query[rows], database, _identity_rows(rows, len(database)))
        ranks.append(expected_rank(groups))
        recalls.append(np.stack([recall_at(groups, k) for k in PAIR_CUTS]))
    recall = np.concatenate(recalls, axis=1).mean(axis=1)
    figures = {f"pair R@{k}": float(value) for k, value in zip(PAIR_CUTS, recall, strict=True)}
    return figures | {"pair median rank": float(np.median(np.concatenate(ranks)))}


def _chunks(queries: int, database: int) -> Iterator[slice]:
    """Yield slices of queries of at most ``CHUNK_CELLS`` cells, to bound the memory."""
    step = max(1, CHUNK_CELLS // max(1, database))
    return (slice(start, min(start + step, queries)) for start in range(0, queries, step))


def _identity_rows(rows: slice, n: int) -> npt.NDArray[np.bool_]:
    """Return rows of the identity matrix (n, n): item i is relevant to query i."""
    return np.equal.outer(np.arange(rows.start, rows.stop), np.arange(n))


def _groups(query: Any, database: Any, relevance: npt.NDArray[Any]) -> TieGroups:
    if isinstance(query, BinaryCodes):
        return groups_by_codes(query, database, relevance)
    return groups_by_values(cosine_distances(query, database), relevance)

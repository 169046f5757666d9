"""The protocol: codes and baselines on the same data, both directions, in one report.

Primary is expected mAP over all points of the database; a hit is relevant if it shares a label with
the query. Queries without anything relevant are left out and counted. Without labels the relevant
item is the natural pair, and the database is the query part itself. Instance retrieval (R@k, median
rank of the natural pair among the queries' pairs) is reported beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal import baselines, linear_models
from xmodal.codes import BinaryCodes
from xmodal.errors import DataError
from xmodal.index import MODALITIES, Modality
from xmodal.metrics import (
    TieGroups,
    average_precision,
    code_health,
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

CUTS = (1, 10, 50, 100)
CELLS = 1 << 23  # queries x database that are looked at together
DIRECTIONS: tuple[tuple[Modality, Modality], ...] = (("image", "text"), ("text", "image"))
Figures = dict[str, float]
Sides = Mapping[Modality, npt.NDArray[Any]]


@dataclass(frozen=True)
class Part:
    """Pairs as the report needs them: features (n, d) of both sides, labels, and codes.

    ``labels`` (n, c) multi-hot bool, ``labelled`` (n,) bool.
    """

    ids: list[str]
    features: Sides
    labels: npt.NDArray[np.bool_]
    labelled: npt.NDArray[np.bool_]
    codes: Mapping[Modality, BinaryCodes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: npt.NDArray[np.bool_]) -> Part:
        """The pairs of a mask."""
        return Part(
            [id_ for id_, kept in zip(self.ids, rows, strict=True) if kept],
            {side: self.features[side][rows] for side in MODALITIES},
            self.labels[rows],
            self.labelled[rows],
            {side: codes[rows] for side, codes in self.codes.items()},
        )


@dataclass(frozen=True)
class Report:
    """A table: ``rows[name]["image->text"]["mAP"]`` is the mean over seeds, ``spread`` its sd.

    ``facts`` say what was measured (sizes, base rate, protocol), ``health`` how codes use bits.
    """

    title: str
    rows: dict[str, dict[str, Figures]]
    facts: dict[str, Any]
    health: Mapping[str, Figures]
    spread: dict[str, dict[str, Figures]] = field(default_factory=dict)
    seeds: int = 1

    def to_json(self) -> str:
        """Everything, as one JSON object."""
        return json.dumps(_without_nan(vars(self)), indent=1, ensure_ascii=False)

    def table(self, metrics: Sequence[str] = ("mAP", "P@10", "pair R@10")) -> list[list[str]]:
        """Header and rows of text, both directions a metric."""
        arrows = ("i>t", "t>i")
        out = [["method", *(f"{metric} {arrow}" for metric in metrics for arrow in arrows)]]
        for name, figures in self.rows.items():
            cells = [name]
            for metric in metrics:
                for ask, answer in DIRECTIONS:
                    way = f"{ask}->{answer}"
                    cells.append(_cell(figures[way].get(metric), self._sd(name, way, metric)))
            out.append(cells)
        return out

    def text(self) -> str:
        """The table as plain text, with the facts under it."""
        rows = self.table()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [self.title, ""]
        for row in rows:
            first = row[0].ljust(widths[0])
            rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            lines.append("  ".join([first, *rest]))
        return "\n".join([*lines, "", *self.notes()])

    def notes(self) -> list[str]:
        """The facts and the health of the codes, a line each."""
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        if self.seeds > 1:
            lines.append(f"mean ± standard deviation over {self.seeds} seeds")
        for side, figures in self.health.items():
            shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            lines.append(f"code health, {side}: {shown}")
        return lines

    def _sd(self, name: str, way: str, metric: str) -> float | None:
        return self.spread.get(name, {}).get(way, {}).get(metric)


def compare(
    train: Part, database: Part, query: Part, *, name: str, seed: int, **options: Any
) -> Report:
    """Measure the codes of ``query`` and ``database`` beside the baselines that ``train`` gives.

    Options: ``shared_space`` (the features of both sides may be compared as they are), ``title``.
    Raises DataError if no query has anything to find.
    """
    by_labels = bool(query.labelled.any() and database.labelled.any() and query.labels.shape[1])
    asked, searched = query, query
    if by_labels:
        asked, searched = query.take(query.labelled), database.take(database.labelled)
    measure = Measure(asked, searched, query, by_labels)
    findable, base_rate = measure.base_rate()
    if not findable:
        raise DataError(
            f"none of {len(asked)} queries shares a label with any of {len(searched)} items: "
            "there is nothing to measure"
        )
    bits = query.codes["image"].bits
    rows = {"chance": measure.chance()}
    for label, projections, as_floats in fitted_baselines(
        train, bits, seed, bool(options.get("shared_space"))
    ):
        rows[label] = measure.projected(projections, as_floats)
    rows[name] = measure.coded()
    facts = {
        "queries": len(asked),
        "queries without anything relevant (left out)": len(asked) - findable,
        "database": len(searched),
        "relevant means": "shares a label" if by_labels else "is the natural pair",
        "base rate": round(base_rate, 4),
        "labelled training pairs": f"{int(train.labelled.sum())} of {len(train)}",
        "bits": bits,
    }
    health = {str(side): code_health(database.codes[side]) for side in MODALITIES}
    order = ["chance", "sign", "cca + itq", "label codeword", name]
    ranked = {key: rows[key] for key in [*order, *rows] if key in rows}
    return Report(str(options.get("title", name)), ranked, facts, health)


def combine(reports: Sequence[Report]) -> Report:
    """Mean and standard deviation (n - 1) over runs with different seeds."""
    first = reports[0]
    if len(reports) == 1:
        return first
    rows: dict[str, dict[str, Figures]] = {}
    spread: dict[str, dict[str, Figures]] = {}
    for name, ways in first.rows.items():
        rows[name], spread[name] = {}, {}
        for way, figures in ways.items():
            values = {
                metric: np.array([report.rows[name][way][metric] for report in reports])
                for metric in figures
            }
            rows[name][way] = {metric: float(v.mean()) for metric, v in values.items()}
            spread[name][way] = {metric: float(v.std(ddof=1)) for metric, v in values.items()}
    health = {
        side: {key: float(np.mean([r.health[side][key] for r in reports])) for key in figures}
        for side, figures in first.health.items()
    }
    return Report(first.title, rows, first.facts, health, spread, len(reports))


def trec_run(
    queries: Part, database: Part, ask: Modality, answer: Modality, depth: int = 1000
) -> Iterator[str]:
    """Lines of a TREC run file: query Q0 document rank score tag; ties in order of id.

    The score is minus the distance, so tools that break ties by themselves may reorder those.
    """
    distances = queries.codes[ask].distances(database.codes[answer])
    ids = np.array(database.ids)
    for query, row in zip(queries.ids, distances, strict=True):
        for rank, place in enumerate(np.lexsort((ids, row))[:depth], 1):
            yield f"{_token(query)} Q0 {_token(ids[place])} {rank} {-int(row[place])} xmodal"


def trec_qrels(queries: Part, database: Part) -> Iterator[str]:
    """Lines of a TREC judgement file: query 0 document labels-shared."""
    gains = shared_labels(queries.labels, database.labels)
    for query, row in zip(queries.ids, gains, strict=True):
        for place in np.flatnonzero(row > 0):
            yield f"{_token(query)} 0 {_token(database.ids[place])} {int(row[place])}"


class Measure:
    """Every figure of one way to rank, in both directions; some queries at a time."""

    def __init__(self, query: Part, database: Part, pairs: Part, by_labels: bool) -> None:
        self.query, self.database, self.pairs, self.by_labels = query, database, pairs, by_labels
        self.graded = by_labels and bool((query.labels.sum(axis=1) > 1).any())

    def base_rate(self) -> tuple[int, float]:
        """How many queries have something to find, and the share of the database that it is."""
        shares = [
            (self._gains(rows) > 0).mean(axis=1)
            for rows in _chunks(len(self.query), len(self.database))
        ]
        share = np.concatenate(shares)
        found = share[share > 0]
        return len(found), float(found.mean()) if len(found) else 0.0

    def _gains(self, rows: slice) -> npt.NDArray[np.float32]:
        """Relevance of every item to some queries: labels shared, or being the natural pair."""
        if self.by_labels:
            return shared_labels(self.query.labels[rows], self.database.labels)
        return _own(rows, len(self.database)).astype(np.float32)

    def chance(self) -> dict[str, Figures]:
        """The expectation over random orders: codes that are all alike."""

        def alike(n: int) -> BinaryCodes:
            return BinaryCodes(np.zeros((n, 1), np.uint8), 8)

        database = {side: alike(len(self.database)) for side in MODALITIES}
        pairs = {side: alike(len(self.pairs)) for side in MODALITIES}
        return self._both({side: alike(len(self.query)) for side in MODALITIES}, database, pairs)

    def coded(self) -> dict[str, Figures]:
        """The codes of the parts."""
        return self._both(self.query.codes, self.database.codes, self.pairs.codes)

    def projected(
        self, projections: linear_models.Projections, as_floats: bool
    ) -> dict[str, Figures]:
        """Projected features, by cosine or by their signs."""

        def of(part: Part) -> dict[Modality, Any]:
            values = {side: getattr(projections, side)(part.features[side]) for side in MODALITIES}
            if as_floats:
                return values
            return {side: BinaryCodes.from_relaxed(one) for side, one in values.items()}

        return self._both(of(self.query), of(self.database), of(self.pairs))

    def _both(
        self,
        query: Mapping[Modality, Any],
        database: Mapping[Modality, Any],
        pairs: Mapping[Modality, Any],
    ) -> dict[str, Figures]:
        out = {}
        for ask, answer in DIRECTIONS:
            figures = self._ranking(query[ask], database[answer])
            out[f"{ask}->{answer}"] = figures | _pair_figures(pairs[ask], pairs[answer])
        return out

    def _ranking(self, query: Any, database: Any) -> Figures:
        values: dict[str, list[npt.NDArray[np.float64]]] = {}
        for rows in _chunks(len(self.query), len(self.database)):
            gains = self._gains(rows)
            groups = _groups(query[rows], database, gains > 0)
            something = np.where(groups.relevant > 0, 1.0, np.nan)
            found = {"mAP": average_precision(groups)}
            found |= {f"P@{k}": precision_at(groups, k) * something for k in CUTS}
            graded = _groups(query[rows], database, gains) if self.graded else None
            for k in (10, 100):
                found[f"NDCG@{k}"] = (
                    ndcg_at(groups, k) if graded is None else ndcg_from_gains(graded, gains, k)
                )
            for name, one in found.items():
                values.setdefault(name, []).append(one)
        return {name: mean(np.concatenate(parts)) for name, parts in values.items()}


def _pair_figures(ask: Any, answer: Any) -> Figures:
    """Recall and median rank of the natural pair; row i of both sides is one pair."""
    ranks, recalls = [], []
    for rows in _chunks(len(ask), len(answer)):
        groups = _groups(ask[rows], answer, _own(rows, len(answer)))
        ranks.append(expected_rank(groups))
        recalls.append(np.stack([recall_at(groups, k) for k in (1, 5, 10)]))
    recall = np.concatenate(recalls, axis=1).mean(axis=1)
    figures = {f"pair R@{k}": float(one) for k, one in zip((1, 5, 10), recall, strict=True)}
    return figures | {"pair median rank": float(np.median(np.concatenate(ranks)))}


def _chunks(queries: int, database: int) -> Iterator[slice]:
    """Slices of queries, so that memory does not grow with their number."""
    step = max(1, CELLS // max(1, database))
    return (slice(start, min(start + step, queries)) for start in range(0, queries, step))


def _own(rows: slice, n: int) -> npt.NDArray[np.bool_]:
    """Some rows of the identity: item i is relevant to query i."""
    return np.equal.outer(np.arange(rows.start, rows.stop), np.arange(n))


def fitted_baselines(
    train: Part, bits: int, seed: int, shared_space: bool
) -> Iterator[tuple[str, linear_models.Projections, bool]]:
    """Name, projections, and whether they are compared as floats."""
    image, text = train.features["image"], train.features["text"]
    projections = linear_models.cca(image, text, bits)
    yield "sign", projections, False
    rng = np.random.default_rng(seed)
    yield "cca + itq", linear_models.itq(image, text, projections, rng=rng), False
    if train.labelled.any() and train.labels.shape[1]:
        known = train.labelled
        words = baselines.label_codeword(
            image[known], text[known], train.labels[known], bits, rng=rng
        )
        yield "label codeword", words, False
    yield "float cosine (cca)", projections, True
    if shared_space:
        yield "float cosine (backbone)", baselines.as_they_are(), True


def _groups(query: Any, database: Any, relevance: npt.NDArray[Any]) -> TieGroups:
    if isinstance(query, BinaryCodes):
        return groups_by_codes(query, database, relevance)
    return groups_by_values(baselines.cosine_distances(query, database), relevance)


def _cell(value: float | None, sd: float | None) -> str:
    if value is None or np.isnan(value):
        return "-"
    return f"{value:.3f}" if sd is None else f"{value:.3f}±{sd:.3f}"


def _token(name: str) -> str:
    """TREC files are split at white space."""
    return "_".join(str(name).split())


def _without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value

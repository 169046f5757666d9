"""Report: figures of an encoder and of the baselines, as JSON, tables and text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xmodal.modality import DIRECTIONS

Figures = dict[str, float]
"""Value of each metric."""
Table = list[list[str]]
"""A header and rows of cells."""

LABEL_METRICS = ("mAP", "P@10")
"""Metrics of the printed table of labels."""
STAGES = {
    "weighted": "weighted",
    "vectors": "int8 vectors (default search)",
    "outputs": "float outputs",
}
"""Rows of the same encoder after that of its codes by Hamming distance."""
FIRST_ROWS = ("chance", "sign", "cca + itq", "label codeword", "pca + itq (backbone)")
"""Rows with codes, before that of the encoder; rows with real-valued vectors are behind it."""
MIN_MEASURED = 20
"""Units below which figures are printed with a warning."""
RECALLS = ("r1", "r5", "r10")


@dataclass(frozen=True)
class Report:
    """Figures of an encoder, whose row is called ``name``, and of baselines.

    ``captions[part]`` has the figures by captions of a part of the data ("query", "validation"), in
    the layout of :func:`~xmodal.evaluation.captions.measure_captions`. ``rows`` has those by
    labels: ``rows[name]["image->text"]["mAP"]`` is the mean over seeds, ``spread`` its standard
    deviation; empty without labels. ``facts``: sizes, base rate and protocol. ``health``: code
    health by modality.

    >>> report = xmodal.Report("no queries", rows={}, facts={}, health={})
    >>> report.title
    'no queries'
    """

    title: str
    rows: dict[str, dict[str, Figures]]
    facts: dict[str, Any]
    health: Mapping[str, Figures]
    spread: dict[str, dict[str, Figures]] = field(default_factory=dict)
    seeds: int = 1
    captions: dict[str, dict[str, Any]] = field(default_factory=dict)
    name: str = "xmodal"

    def to_json(self) -> str:
        """Return the report as a JSON object; NaN is written as null."""
        return json.dumps(_without_nan(vars(self)), indent=1, ensure_ascii=False)

    def headline(self) -> dict[str, float]:
        """Return R@10 of the query captions and mAP by labels of the encoder, as far as known.

        R@10 of fewer than 20 units is left out: it says nothing.
        """
        figures = {}
        for source, target in DIRECTIONS:
            if self.captions.get("query", {}).get("units", 0) >= MIN_MEASURED:
                share = self.captions["query"][f"{source}_to_{target}"]["r10"]
                figures[f"R@10 {source}->{target}"] = round(share, 4)
            if self.name in self.rows:
                direction = f"{source}->{target}"
                figures[f"mAP {direction}"] = round(self.rows[self.name][direction]["mAP"], 4)
        return figures

    def tables(self) -> list[tuple[str, Table]]:
        """Return title and cells of each table: captions of each part, then labels."""
        tables = [
            (
                f"{self.title}, captions of the {part} part, R@k in % "
                f"({found['pictures']:,} pictures, {found['captions']:,} captions)",
                self.caption_table(part),
            )
            for part, found in self.captions.items()
        ]
        if self.rows:
            tables.append((f"{self.title}, labels", self.table()))
        return tables

    def table(self, metrics: Sequence[str] = LABEL_METRICS) -> Table:
        """Return the figures by labels: one row per method, two columns (directions) a metric."""
        arrows = ("i>t", "t>i")
        rows = [["method", *(f"{metric} {arrow}" for metric in metrics for arrow in arrows)]]
        for name, figures in self.rows.items():
            cells = [name]
            for metric in metrics:
                for source, target in DIRECTIONS:
                    direction = f"{source}->{target}"
                    sd = self.spread.get(name, {}).get(direction, {}).get(metric)
                    cells.append(_cell(figures[direction].get(metric), sd))
            rows.append(cells)
        return rows

    def caption_rows(self, part: str) -> dict[str, dict[str, Any]]:
        """Return the figures by captions of a part, by name of the method, in printed order."""
        found = self.captions[part]
        baselines = found["baselines"]
        rows = {name: baselines[name] for name in FIRST_ROWS if name in baselines}
        rows[self.name] = found
        for key, words in STAGES.items():
            if key in found:
                rows[f"{self.name}, {words}"] = found[key]
        return rows | {name: row for name, row in baselines.items() if name not in rows}

    def caption_table(self, part: str) -> Table:
        """Return R@1, R@5 and R@10 in percent and the median rank, both directions, and rsum."""
        columns = [*((name, f"R@{name[1:]}", 100.0) for name in RECALLS)]
        columns.append(("median_rank", "rank", 1.0))
        rows = [["method", *(f"{c} {a}" for a in ("i>t", "t>i") for _, c, _ in columns), "rsum"]]
        for name, row in self.caption_rows(part).items():
            cells = [name]
            for source, target in DIRECTIONS:
                figures = row[f"{source}_to_{target}"]
                cells += [_cell_of(figures, key, scale) for key, _, scale in columns]
            rows.append([*cells, _cell_of(row, "rsum", 1.0)])
        return rows

    def text(self) -> str:
        """Return the tables as plain text, followed by the notes."""
        lines = []
        for title, table in self.tables():
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines += [title, ""]
            for row in table:
                first = row[0].ljust(widths[0])
                rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
                lines.append("  ".join([first, *rest]))
            lines.append("")
        return "\n".join([*lines, *self.notes()])

    def notes(self) -> list[str]:
        """Return lines with warnings, the intervals, the facts and the code health."""
        lines = [
            line
            for part, found in self.captions.items()
            for line in few_measured(found["units"], part) or [self._interval_line(part)]
        ]
        lines += [f"{name}: {value}" for name, value in self.facts.items()]
        if self.seeds > 1:
            lines.append(f"mean ± standard deviation over {self.seeds} seeds")
        for modality, figures in self.health.items():
            values = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            lines.append(f"code health, {modality}: {values}")
        return lines

    def _interval_line(self, part: str) -> str:
        """Return a line with 95 % intervals of the encoder."""
        found = self.captions[part]
        r10 = (
            "{:.1f} to {:.1f}".format(
                *(100 * end for end in found[f"{source}_to_{target}"]["r10_interval"])
            )
            for source, target in DIRECTIONS
        )
        low, high = found["rsum_interval"]
        return (
            f"95 % intervals of {self.name}, {part}: R@10 {' | '.join(r10)}, "
            f"rsum {low:.1f} to {high:.1f}"
        )


def few_measured(units: int, part: str) -> list[str]:
    """Return a warning if the figures of a part were measured on fewer than 20 units."""
    if units >= MIN_MEASURED:
        return []
    measured = "1 picture with its captions" if units == 1 else f"{units} pictures with captions"
    return [
        f"warning: the {part} part has only {measured}: figures of fewer than {MIN_MEASURED} say "
        f"nothing about other data; add data, or raise --{part}"
    ]


def combine(reports: Sequence[Report]) -> Report:
    """Return mean and standard deviation (n - 1) over reports of different seeds.

    Figures by captions have the deviation beside them as ``NAME_sd``; the ends of the intervals,
    which describe the choice of the queries, are means. Parts that not all reports have are left
    out.
    """
    first = reports[0]
    if len(reports) == 1:
        return first
    rows: dict[str, dict[str, Figures]] = {}
    spread: dict[str, dict[str, Figures]] = {}
    for name, directions in first.rows.items():
        rows[name], spread[name] = {}, {}
        for direction, figures in directions.items():
            values = {
                metric: np.array([report.rows[name][direction][metric] for report in reports])
                for metric in figures
            }
            rows[name][direction] = {metric: float(v.mean()) for metric, v in values.items()}
            spread[name][direction] = {metric: float(v.std(ddof=1)) for metric, v in values.items()}
    health = {
        modality: {
            key: float(np.mean([report.health[modality][key] for report in reports]))
            for key in figures
        }
        for modality, figures in first.health.items()
    }
    captions = _combined([report.captions for report in reports])
    return Report(
        first.title, rows, first.facts, health, spread, len(reports), captions, first.name
    )


def _combined(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means of all floats and lists of nested figures, with the deviations of floats.

    Other values are those of the first figures.
    """
    found: dict[str, Any] = {}
    for key, value in figures[0].items():
        if not all(key in one for one in figures):
            continue
        values = [one[key] for one in figures]
        if isinstance(value, Mapping):
            found[key] = _combined(values)
        elif isinstance(value, list):
            found[key] = np.mean(values, axis=0).tolist()
        elif isinstance(value, float):
            found[key] = float(np.mean(values))
            found[f"{key}_sd"] = float(np.std(values, ddof=1))
        else:
            found[key] = value
    return found


def _cell_of(figures: Mapping[str, Any], key: str, scale: float) -> str:
    """Return the cell of a figure by captions, times ``scale``, with one decimal."""
    value, sd = figures[key], figures.get(f"{key}_sd")
    if np.isnan(value):
        return "-"
    text = f"{scale * value:.1f}"
    return text if sd is None else f"{text}±{scale * sd:.1f}"


def _cell(value: float | None, sd: float | None) -> str:
    if value is None or np.isnan(value):
        return "-"
    return f"{value:.3f}" if sd is None else f"{value:.3f}±{sd:.3f}"


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by None."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value

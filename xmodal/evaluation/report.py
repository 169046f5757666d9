"""Report: figures of an encoder and of the baselines, as JSON, table and text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xmodal.modality import DIRECTIONS

Figures = dict[str, float]
"""Value of each metric."""


@dataclass(frozen=True)
class Report:
    """A table: ``rows[name]["image->text"]["mAP"]`` is the mean over seeds, ``spread`` its sd.

    ``facts``: sizes, base rate and protocol. ``health``: code health by modality.
    """

    title: str
    rows: dict[str, dict[str, Figures]]
    facts: dict[str, Any]
    health: Mapping[str, Figures]
    spread: dict[str, dict[str, Figures]] = field(default_factory=dict)
    seeds: int = 1

    def to_json(self) -> str:
        """Return the report as a JSON object; NaN is written as null."""
        return json.dumps(_without_nan(vars(self)), indent=1, ensure_ascii=False)

    def table(self, metrics: Sequence[str] = ("mAP", "P@10", "pair R@10")) -> list[list[str]]:
        """Return a header and one row per method, with two columns (directions) per metric."""
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

    def text(self) -> str:
        """Return the table as plain text, followed by the notes."""
        rows = self.table()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [self.title, ""]
        for row in rows:
            first = row[0].ljust(widths[0])
            rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            lines.append("  ".join([first, *rest]))
        return "\n".join([*lines, "", *self.notes()])

    def notes(self) -> list[str]:
        """Return one line per fact, and one per modality with the code health."""
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        if self.seeds > 1:
            lines.append(f"mean ± standard deviation over {self.seeds} seeds")
        for modality, figures in self.health.items():
            values = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            lines.append(f"code health, {modality}: {values}")
        return lines


def combine(reports: Sequence[Report]) -> Report:
    """Return mean and standard deviation (n - 1) over reports of different seeds."""
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
    return Report(first.title, rows, first.facts, health, spread, len(reports))


def _cell(value: float | None, sd: float | None) -> str:
    if value is None or np.isnan(value):
        return "-"
    return f"{value:.3f}" if sd is None else f"{value:.3f}±{sd:.3f}"


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by None."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value

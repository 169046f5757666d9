"""Results of the jobs of a plan, as values by task, row and bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.jobs import MODEL, Environment, Job, load_result

DIRECTIONS = ("image->text", "text->image")
BASELINES = ("chance", "sign", "cca + itq", "label codeword", "float cosine (cca)")
Values = npt.NDArray[np.float64]
"""One value per seed."""
Section = tuple[str, str]
"""Heading and Markdown."""


class Results:
    """The results of jobs, by task, row and bits, in order of the seeds."""

    def __init__(self, jobs: Iterable[Job], environment: Environment) -> None:
        self.found: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = {}
        self.missing = 0
        other_code: set[str] = set()
        for job in jobs:
            result = load_result(job, environment)
            if result is None:
                self.missing += 1
                continue
            name = job.row.name if job.row else "baselines"
            self.found.setdefault((job.task.name, name, job.bits), {})[job.seed] = result
            if result["code"] != job.code():
                other_code.add(str(job.path(environment)))
        self.other_code = len(other_code)

    def of(self, task: str, row: str, bits: int = 32) -> list[dict[str, Any]]:
        """Results of a row, or of the baselines, in order of the seeds."""
        kept = self.found.get((task, "baselines" if row in BASELINES else row, bits), {})
        return [kept[seed] for seed in sorted(kept)]

    def seeds(self, task: str, row: str, bits: int = 32) -> list[int]:
        """Seeds that have a result."""
        return sorted(self.found.get((task, "baselines" if row in BASELINES else row, bits), {}))

    def values(
        self, task: str, row: str, direction: str, metric: str = "mAP", bits: int = 32
    ) -> Values:
        """A metric of each seed, possibly empty; direction "both": mean of both directions."""
        name = row if row in BASELINES else MODEL
        directions = DIRECTIONS if direction == "both" else (direction,)
        each = [
            np.mean([_number(one["figures"][name][direction][metric]) for direction in directions])
            for one in self.of(task, row, bits)
            if name in one["figures"]
        ]
        return np.array(each, dtype=np.float64)

    def differences(
        self, task: str, row: str, other: str, direction: str, bits: int = 32
    ) -> Values:
        """``row`` minus ``other`` (mAP), for each seed that both have."""
        one, two = (self.values(task, name, direction, bits=bits) for name in (row, other))
        left, right = self.seeds(task, row, bits), self.seeds(task, other, bits)
        shared = [seed for seed in left if seed in right]
        return np.array([one[left.index(seed)] - two[right.index(seed)] for seed in shared])

    def notes(self) -> list[str]:
        """Notes on missing results and results of other code, as Markdown list items."""
        lines = []
        if self.missing:
            lines.append(f"- **{self.missing} results are missing**, shown as `-`")
        if self.other_code:
            lines.append(
                f"- {self.other_code} results come from other code than the current one (`--fresh`)"
            )
        return lines


def _number(value: float | None) -> float:
    """NaN is stored as null."""
    return float("nan") if value is None else value


def shown(values: Values, sign: str = "", digits: int = 3) -> str:
    """Mean ± standard deviation (n - 1), or "-" without values."""
    if not len(values):
        return "-"
    mean = f"{values.mean():{sign}.{digits}f}"
    return mean if len(values) < 2 else f"{mean}±{values.std(ddof=1):.{digits}f}"

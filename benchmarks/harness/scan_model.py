"""A model of the time of an exact search: a request, the collection of hits, a time for each code.

``median = request + per_doubling * log2(codes / 1000) + codes * (per_code + per_word * words)``,
where ``words`` is the number of 64-bit words of a code. The number of documents that are among the
best so far, which are collected one by one, grows with the logarithm of the number of documents.
Interruptions, by other programs or by the collection of garbage, are independent of each other, so
that the deviation of their sum grows with the root of the time: the 95th percentile is
``median + tail * sqrt(median)``. The model is fitted to small numbers of codes and predicts others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

FEWEST = 1_000
"""Codes of a search that takes the time of a request alone."""


@dataclass(frozen=True)
class ScanModel:
    """``request``, ``per_doubling`` in milliseconds; ``per_code``, ``per_word`` in nanoseconds."""

    request: float
    per_code: float
    per_word: float
    per_doubling: float = 0.0
    tail: float = 0.0

    @classmethod
    def fit(
        cls,
        medians: Mapping[tuple[int, int], float],
        percentiles: Mapping[tuple[int, int], float] | None = None,
    ) -> ScanModel:
        """Fit to the medians by number of codes and words; least squares, all parts at least 0.

        ``percentiles``: the 95th ones; ``tail`` is fitted to those of the largest number of codes.
        """
        codes, words = np.array(list(medians), dtype=float).T
        columns = [np.ones(len(codes)), codes / 1e6, codes * words / 1e6, np.log2(codes / FEWEST)]
        parts, _ = nnls(np.stack(columns, axis=1), np.array(list(medians.values())))
        tails = [
            (high - medians[row]) / math.sqrt(medians[row])
            for row, high in (percentiles or {}).items()
            if row[0] == codes.max()
        ]
        return cls(*map(float, parts), float(np.mean(tails or [0.0])))

    def scan(self, codes: float, bits: int) -> float:
        """Milliseconds in which one core compares the codes."""
        return codes * (self.per_code + self.per_word * -(-bits // 64)) / 1e6

    def predict(self, codes: float, bits: int) -> float:
        """Milliseconds of a search of ``codes`` codes in one shard, by one thread."""
        collected = self.per_doubling * math.log2(max(codes, FEWEST) / FEWEST)
        return self.request + collected + self.scan(codes, bits)

    def predict_95(self, codes: float, bits: int) -> float:
        """The 95th percentile of these times."""
        median = self.predict(codes, bits)
        return median + self.tail * math.sqrt(median)


def deviation(measured: float, predicted: float) -> str:
    """By how much a prediction is above (+) or below (-) the measurement, in percent."""
    return f"{100 * (predicted / measured - 1):+.0f} %"


def save(path: Path, models: Mapping[str, ScanModel], facts: Mapping[str, object]) -> None:
    """Write models by name, and the facts about their measurement, as JSON."""
    record = {**facts, "models": {name: asdict(model) for name, model in models.items()}}
    path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def load(path: Path) -> tuple[dict[str, ScanModel], dict[str, Any]]:
    """Read what :func:`save` wrote."""
    record = json.loads(path.read_text())
    return {name: ScanModel(**values) for name, values in record.pop("models").items()}, record


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of the values do not exceed; a measured one."""
    return float(np.percentile(values, percent, method="higher"))

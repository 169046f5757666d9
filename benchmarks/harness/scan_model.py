"""A model of the time of an exact search: a request, and a time for each code and its words.

``median = request + codes * (per_code + per_word * words)``, where ``words`` is the number of
64-bit words of a code. Interruptions, by other programs or by the collection of garbage, are
independent of each other, so that the deviation of their sum grows with the root of the time: the
95th percentile is ``median + tail * sqrt(median)``. The model is fitted to rows of one number of
codes and predicts those of others.
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


@dataclass(frozen=True)
class ScanModel:
    """``request``: milliseconds of a search of few codes; the next two are nanoseconds."""

    request: float
    per_code: float
    per_word: float
    tail: float = 0.0

    @classmethod
    def fit(
        cls,
        request: float,
        codes: int,
        milliseconds: Mapping[int, float],
        percentiles: Mapping[int, float] | None = None,
    ) -> ScanModel:
        """Fit to the medians with ``codes`` codes, by their number of words.

        ``percentiles``: the 95th ones. Least squares; all parts are at least 0.
        """
        words = np.array(list(milliseconds), dtype=float)
        times = (np.array(list(milliseconds.values())) - request) * 1e6 / codes
        (per_code, per_word), _ = nnls(np.stack([np.ones(len(words)), words], axis=1), times)
        tails = [
            (high - milliseconds[number]) / math.sqrt(milliseconds[number])
            for number, high in (percentiles or {}).items()
        ]
        return cls(request, float(per_code), float(per_word), float(np.mean(tails or [0.0])))

    def scan(self, codes: float, bits: int) -> float:
        """Milliseconds of one core, without the request."""
        return max(0.0, codes * (self.per_code + self.per_word * -(-bits // 64)) / 1e6)

    def predict(self, codes: float, bits: int) -> float:
        """Milliseconds of a search of ``codes`` codes in one shard, by one thread."""
        return self.request + self.scan(codes, bits)

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

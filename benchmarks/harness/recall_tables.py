"""Cells of tables with R@10 of jobs, whose results have R@k of ``codes`` and ``outputs``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

DIRECTIONS = ("image_to_text", "text_to_image")


def r10(results: Sequence[dict[str, Any]], kind: str, direction: str) -> np.ndarray:
    """R@10 in percent of each result; ``kind``: "codes" or "outputs"."""
    return np.array([100 * one[kind][direction]["r10"] for one in results])


def both(results: Sequence[dict[str, Any]], kind: str = "outputs") -> np.ndarray:
    """R@10 in percent of each result, mean of both directions."""
    return np.mean([r10(results, kind, direction) for direction in DIRECTIONS], axis=0)


def shown(values: np.ndarray, sign: str = "", digits: int = 1) -> str:
    """Mean ± standard deviation, "-" without values; ``sign``: "+" shows that of the mean."""
    if not len(values):
        return "-"
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.{digits}f}{deviation}"

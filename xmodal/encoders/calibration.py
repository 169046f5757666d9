"""Calibration: from Hamming distance to the probability that a pair matches.

A logistic curve p(d) = 1 / (1 + exp(slope * d / bits + offset)) is fitted to validation pairs and
as many sampled non-matching pairs. The probability is therefore calibrated for an even mix of both:
use it for ranking and thresholds; it is not the share of matches among the hits of a large
collection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError


@dataclass(frozen=True)
class Confidence:
    """Calibration curve for codes of ``bits`` bits; with ``slope`` >= 0 it decreases."""

    slope: float
    offset: float
    bits: int

    def __call__(self, distance: int) -> float:
        """Return the probability of a match at ``distance`` bits, in [0, 1]."""
        exponent = min(700.0, self.slope * distance / self.bits + self.offset)
        return 1 / (1 + math.exp(exponent))

    def radius(self, min_confidence: float) -> int | None:
        """Return the largest distance with at least this confidence; None if there is none."""
        distances = [d for d in range(self.bits + 1) if self(d) >= min_confidence]
        return max(distances, default=None)

    def search_radius(
        self, max_distance: int | None, min_confidence: float | None, *, cross_modal: bool
    ) -> int | None:
        """Return the largest distance that satisfies both limits, or None without limits.

        Raises ConfigError for a confidence that no distance reaches, and for any confidence unless
        the search is ``cross_modal``.
        """
        if min_confidence is None:
            return max_distance
        if not cross_modal:
            raise ConfigError(
                "confidence is calibrated between pictures and texts only: limit the distance"
            )
        radius = self.radius(min_confidence)
        if radius is None:
            raise ConfigError(
                f"a confidence of {min_confidence} is above the maximum of this encoder "
                f"({self(0):.3f} at distance 0)"
            )
        return radius if max_distance is None else min(radius, max_distance)

    def to_config(self) -> dict[str, float]:
        """Return the curve as ``config.json`` stores it."""
        return {"slope": self.slope, "offset": self.offset}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], bits: int) -> Confidence:
        """Return the curve that ``config.json`` stores."""
        return cls(float(config["slope"]), float(config["offset"]), bits)


def fit(
    matches: npt.NDArray[np.integer], non_matches: npt.NDArray[np.integer], bits: int
) -> Confidence:
    """Fit the curve to the distances of matches (n,) and non-matches (m,), each weighing half.

    Newton's method on the ridge-penalised log-likelihood. The curve is flat if either is empty, or
    if matches are not nearer.
    """
    if not len(matches) or not len(non_matches):
        return Confidence(0.0, 0.0, bits)
    x = np.concatenate([matches, non_matches]) / bits
    y = np.concatenate([np.ones(len(matches)), np.zeros(len(non_matches))])
    weight = np.where(y == 1, 0.5 / len(matches), 0.5 / len(non_matches))
    design = np.stack([x, np.ones_like(x)], axis=1)
    beta = np.zeros(2)
    penalty = np.diag([1e-4, 1e-6])  # separable distances would send the slope to infinity
    for _ in range(100):
        p = 1 / (1 + np.exp(np.clip(design @ beta, -60, 60)))
        gradient = design.T @ (weight * (y - p)) + penalty @ beta
        hessian = (design * (weight * p * (1 - p))[:, None]).T @ design + penalty
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 10 / max(1e-12, float(np.abs(step).max())))
        beta = beta - step
        if np.abs(step).max() < 1e-9:
            break
    if beta[0] <= 0:  # matches are not nearer: distance carries no information
        return Confidence(0.0, 0.0, bits)
    return Confidence(float(beta[0]), float(beta[1]), bits)


def sample_distances(
    image: BinaryCodes,
    text: BinaryCodes,
    match: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    per_pair: int = 20,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distances of all pairs (i, i), and of sampled (i, j) with ``match[i, j]`` false.

    ``match`` has shape (n, n). At most ``per_pair`` non-matches are sampled for each row.
    """
    n = len(image)
    rows = np.repeat(np.arange(n), per_pair)
    columns = rng.integers(0, max(n, 1), size=len(rows))
    keep = ~match[rows, columns] & (rows != columns)
    non_matches = image.to_bits()[rows[keep]] != text.to_bits()[columns[keep]]
    matches = image.to_bits() != text.to_bits()
    return matches.sum(axis=1, dtype=np.int64), non_matches.sum(axis=1, dtype=np.int64)

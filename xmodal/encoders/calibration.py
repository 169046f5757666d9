"""From distance to confidence: how likely a pair at that distance is a true match.

A logistic curve p(d) = 1 / (1 + exp(slope * d / bits + offset)), fitted on validation pairs against
as many sampled pairs that are not matches. So it is calibrated for an even mix of both: it ranks
and cuts off, but is not the share of true matches among the hits of a large collection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError


@dataclass(frozen=True)
class Confidence:
    """The fitted curve for codes of ``bits`` bits; ``slope`` >= 0, so nearer is surer."""

    slope: float
    offset: float
    bits: int

    def __call__(self, distance: int) -> float:
        """The probability of a match at ``distance`` bits, in [0, 1]."""
        exponent = min(700.0, self.slope * distance / self.bits + self.offset)
        return 1 / (1 + math.exp(exponent))

    def radius(self, at_least: float) -> int | None:
        """The largest distance with a confidence of ``at_least``; None if there is none."""
        fitting = [d for d in range(self.bits + 1) if self(d) >= at_least]
        return max(fitting, default=None)

    def cut(
        self, max_distance: int | None, min_confidence: float | None, across: bool
    ) -> int | None:
        """The radius of both cut-offs together; ``across``: between a picture and a text.

        Raises ConfigError for a confidence that is never reached, or not known.
        """
        if min_confidence is None:
            return max_distance
        if not across:
            raise ConfigError(
                "confidence is known between pictures and texts only: cut off by distance here"
            )
        sure = self.radius(min_confidence)
        if sure is None:
            raise ConfigError(
                f"a confidence of {min_confidence} is above what this encoder ever says "
                f"({self(0):.3f} at distance 0)"
            )
        return sure if max_distance is None else min(sure, max_distance)


def fit(matches: npt.NDArray[np.integer], others: npt.NDArray[np.integer], bits: int) -> Confidence:
    """Fit the curve to the distances (n,) of matches and (m,) of non-matches, each weighing half.

    Newton's method on the ridge-penalised log-likelihood; with nothing to fit the curve is flat.
    """
    if not len(matches) or not len(others):
        return Confidence(0.0, 0.0, bits)
    x = np.concatenate([matches, others]) / bits
    y = np.concatenate([np.ones(len(matches)), np.zeros(len(others))])
    weight = np.where(y == 1, 0.5 / len(matches), 0.5 / len(others))
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
    if beta[0] <= 0:  # matches are not nearer than others: distance says nothing
        return Confidence(0.0, 0.0, bits)
    return Confidence(float(beta[0]), float(beta[1]), bits)


def sample_distances(
    image: BinaryCodes,
    text: BinaryCodes,
    match: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    per_pair: int = 20,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distances of the natural pairs (i, i), and of sampled (i, j) that ``match`` (n, n) denies."""
    n = len(image)
    rows = np.repeat(np.arange(n), per_pair)
    columns = rng.integers(0, max(n, 1), size=len(rows))
    keep = ~match[rows, columns] & (rows != columns)
    apart = image.to_bits()[rows[keep]] != text.to_bits()[columns[keep]]
    together = image.to_bits() != text.to_bits()
    return together.sum(axis=1, dtype=np.int64), apart.sum(axis=1, dtype=np.int64)

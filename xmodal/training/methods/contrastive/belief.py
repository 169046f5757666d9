"""Probability that the picture and the caption of a pair belong together.

The contrastive loss of a pair is compared with those of random pairs by the same towers. Two rules
turn losses into probabilities:

    chance     For a wrong pair the share of random pairs with a smaller loss is uniform in [0, 1],
               if the towers were not trained on the pair. The number of wrong pairs is twice that
               of shares above 1/2 (Storey, JRSS B 2002); the density of all shares falls, and is
               estimated by the concave majorant of their distribution (Grenander, 1956).
    gaussians  The losses are a mixture of two normal distributions, the right pairs being those of
               the smaller mean, as in DivideMix (Li, Socher and Hoi, ICLR 2020). It also divides
               data without wrong pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from xmodal.encoders.towers import Towers
from xmodal.features.rows import Array, Features, Int64
from xmodal.features.units import Units
from xmodal.features.unpaired import Unpaired
from xmodal.training.methods.contrastive.selection import Embedded
from xmodal.training.pairs import batches

Float64 = npt.NDArray[np.float64]

REFERENCE = 2000
"""Captions that a picture is compared with, and pictures that a caption is compared with."""
BLOCK_PAIRS = 8192
"""Pairs whose losses are computed at once; random pairs are of one block."""
TAIL = 0.5
"""Shares of random pairs above this one are those of wrong pairs."""
ROUNDS = 200
"""Rounds of expectation maximisation."""


@dataclass(frozen=True)
class Losses:
    """Contrastive losses of pairs, (m,), and of random pairs of the same pictures and captions."""

    own: Float64
    chance: Float64

    @classmethod
    def of(
        cls, towers: Towers, units: Units, rows: Int64, temperature: float, rng: np.random.Generator
    ) -> Losses:
        """Compute the losses of the captions ``rows`` (m,) by the codes of towers.

        A random pair has a picture and a caption of different units.
        """
        reference = Embedded.of([towers], Unpaired(_some(units.image, rng), _some(units.text, rng)))
        image, unit = units.caption_pairs()[0], units.unit_of_rows("text")
        own = np.empty(len(rows))
        chance: list[Float64] = []
        for places in batches(len(rows), BLOCK_PAIRS, rng):
            text = rows[places.numpy()]
            codes = Embedded.of([towers], Unpaired(units.image[image[text]], units.text[text]))
            loss = _Block.of(codes, reference, temperature).loss
            own[places.numpy()] = loss(np.arange(len(text)))
            other = rng.permutation(len(text))
            random = units.text_key[text[other]] != units.text_key[text]
            chance.append(loss(other)[random & (unit[text[other]] != unit[text])])
        return cls(own, np.concatenate(chance))

    def shares(self) -> Float64:
        """Return the share of random pairs with a smaller loss than each pair, in (0, 1]."""
        smaller = np.searchsorted(np.sort(self.chance), self.own)
        return np.asarray((smaller + 1) / (len(self.chance) + 1))


@dataclass(frozen=True)
class _Block:
    """Codes of pairs, (b, K), and the logarithms of their sums over other codes, (b,)."""

    codes: Embedded
    image_sum: torch.Tensor
    text_sum: torch.Tensor
    temperature: float

    @classmethod
    def of(cls, codes: Embedded, others: Embedded, temperature: float) -> _Block:
        image_sum, text_sum = (
            torch.logsumexp(queries @ items.T / temperature, dim=1)
            for queries, items in ((codes.image, others.text), (codes.text, others.image))
        )
        return cls(codes, image_sum, text_sum, temperature)

    def loss(self, text: Int64) -> Float64:
        """Return the loss of each picture with the caption at ``text`` (b,), both directions."""
        match = (self.codes.image * self.codes.text[text]).sum(1) / self.temperature
        return ((self.image_sum + self.text_sum[text]) / 2 - match).double().numpy()


def wrong_share(shares: Float64) -> float:
    """Return the estimated share of wrong pairs, by the shares (c,) of random pairs."""
    return min(1.0, float((shares > TAIL).mean()) / (1 - TAIL))


def by_chance(shares: Float64) -> Float64:
    """Return the probability that each pair is right, by the shares (c,) of random pairs."""
    values, counts = np.unique(shares, return_counts=True)
    ends = [(0.0, 0.0)]
    for point in zip(values.tolist(), (np.cumsum(counts) / len(shares)).tolist(), strict=True):
        while len(ends) > 1 and _slope(ends[-2], ends[-1]) <= _slope(ends[-1], point):
            ends.pop()
        ends.append(point)
    density = np.array([_slope(*pair) for pair in pairwise(ends)])
    place = np.searchsorted([x for x, _ in ends[1:]], shares)
    return np.asarray(1 - np.minimum(1, wrong_share(shares) / density[place]))


def separation(belief: Float64) -> float:
    """Return the separation of right and wrong pairs by probabilities (c,): 1 without errors.

    1 minus the expected errors, divided by those of one decision for all pairs. A density of shares
    that falls slowly, as that of right pairs by weak towers, gives less than 0.6.
    """
    wrong = 1 - float(belief.mean())
    errors = float(np.minimum(belief, 1 - belief).mean())
    return 1 - errors / max(1e-9, min(wrong, 1 - wrong))


def by_gaussians(losses: Float64) -> Float64:
    """Return the probability that each pair is right, by its loss (c,)."""
    mean = np.percentile(losses, [20, 80])
    deviation, share = np.repeat(losses.std() + 1e-6, 2), np.array([0.5, 0.5])
    for _ in range(ROUNDS):
        logs = np.log(share / deviation) - ((losses[:, None] - mean) / deviation) ** 2 / 2
        probability = np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))
        weight = probability.sum(axis=0) + 1e-6
        mean = probability.T @ losses / weight
        square = (probability * (losses[:, None] - mean) ** 2).sum(axis=0) / weight
        deviation, share = np.sqrt(square) + 1e-6, weight / weight.sum()
    return np.asarray(probability[:, np.argmin(mean)])


def _slope(start: tuple[float, float], end: tuple[float, float]) -> float:
    return (end[1] - start[1]) / (end[0] - start[0])


def _some(features: Features, rng: np.random.Generator) -> Array:
    """Return at most REFERENCE random rows."""
    return features[np.sort(rng.permutation(len(features))[:REFERENCE])]

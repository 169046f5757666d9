"""Selection of the pairs that are kept, where pictures and captions may be paired wrongly.

Rules:

    linear        linear models (the towers before training) of both halves of the pairs; each
                  judges the pairs of the other half by chance, see
                  :mod:`xmodal.training.methods.contrastive.belief`
    two-networks  the same with trained towers. Departure from co-teaching (Han et al., NeurIPS
                  2018) and DivideMix (Li, Socher and Hoi, ICLR 2020), whose networks are trained
                  on all pairs, and select for each other in turn
    small-loss    towers that are trained on all pairs judge them by a mixture of two normal
                  distributions of their losses
    policy        the towers of "two-networks", whose choice a policy changes, see
                  :mod:`xmodal.training.methods.contrastive.pair_policy`
    auto          linear, if it estimates that at least AUTO_FROM of the pairs are wrong

The captions of a picture are in both halves in turn, so that the towers know most pictures from
their other captions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from xmodal.encoders.towers import Towers
from xmodal.features.rows import Int64
from xmodal.features.units import Units
from xmodal.training.methods.contrastive.belief import Losses, by_chance, by_gaussians, wrong_share
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.noise import Sifted, without_captions
from xmodal.training.methods.contrastive.pair_policy import policy_belief

AUTO_FROM = 0.1
"""Estimated share of wrong pairs from which "auto" leaves pairs out."""
TRAININGS = {"small-loss": 1, "two-networks": 2, "policy": 2}
"""Trainings before the selection."""


class Sieve:
    """Judges the pairs of ``units``.

    ``linear``: returns towers of units before training. ``seed``: of all random choices.
    """

    def __init__(
        self, units: Units, config: Config, seed: int, linear: Callable[[Units], Towers]
    ) -> None:
        self._units, self._config, self._seed, self._linear = units, config, seed, linear
        self.trainings = TRAININGS.get(config.noise, 0)

    def part(self, number: int) -> Units:
        """Return the units of training ``number``: all, or those with the captions of a half."""
        if self.trainings == 1:
            return self._units
        return without_captions(self._units, half_of_captions(self._units) != number)

    def sift(self, trained: Sequence[Towers]) -> Sifted | None:
        """Judge the pairs by the towers of the trainings; None if all are kept."""
        units, config = self._units, self._config
        if config.noise == "none":
            return None
        rng = np.random.default_rng([self._seed, len(units)])
        if config.noise == "small-loss":
            rows = np.arange(len(units.text))
            losses = Losses.of(trained[0], units, rows, config.temperature, rng)
            return Sifted(units, by_gaussians(losses.own))
        towers = trained or [self._linear(self.part(number)) for number in (0, 1)]
        shares, half = np.empty(len(units.text)), half_of_captions(units)
        for number in (0, 1):
            rows = np.flatnonzero(half == number)
            losses = Losses.of(towers[1 - number], units, rows, config.temperature, rng)
            shares[rows] = losses.shares()
        if config.noise == "auto" and wrong_share(shares) < AUTO_FROM:
            return None
        belief = by_chance(shares)
        if config.noise == "policy":
            belief = policy_belief(units, belief, half, towers, config.temperature, rng)
        return Sifted(units, belief)


def half_of_captions(units: Units) -> Int64:
    """Return the half of each caption, (c,) of 0 and 1: the captions of a unit in turn."""
    unit = units.unit_of_rows("text")
    return np.asarray((np.arange(len(unit)) - units.text_offsets[unit] + unit) % 2)

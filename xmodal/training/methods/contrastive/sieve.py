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
    auto          linear, if it estimates that at least AUTO_FROM of the pairs are wrong, and tells
                  them apart from the others; all are kept where pictures are pixels

The captions of a picture are in both halves in turn, so that the towers know most pictures from
their other captions. A rule that would leave nearly all pairs out cannot judge them; all are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from xmodal.encoders.towers import Towers
from xmodal.features.rows import Int64
from xmodal.features.units import Units
from xmodal.training.methods.contrastive.belief import (
    Float64,
    Losses,
    by_chance,
    by_gaussians,
    separation,
    wrong_share,
)
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.noise import Sifted, without_captions
from xmodal.training.methods.contrastive.pair_policy import policy_belief
from xmodal.training.methods.contrastive.trainer import CaptionData

log = logging.getLogger(__name__)

AUTO_FROM = 0.1
"""Estimated share of wrong pairs from which "auto" leaves pairs out; so is that of right pairs."""
AUTO_SEPARATION = 2 / 3
"""Separation of wrong and right pairs from which "auto" leaves pairs out."""
AUTO_PAIRS, FEWEST_PAIRS = 200, 8
"""Pairs from which "auto" judges them, and from which other rules do."""
FEWEST_KEPT = 0.05
"""Share of the pairs that a rule keeps at least."""
TRAININGS = {"small-loss": 1, "two-networks": 2, "policy": 2}
"""Trainings before the selection."""


class Sieve:
    """Judges the pairs of the training units of ``data``.

    ``linear``: returns towers of units before training. ``seed``: of all random choices.
    """

    def __init__(
        self, data: CaptionData, config: Config, seed: int, linear: Callable[[Units], Towers]
    ) -> None:
        self._units, self._config, self._seed, self._linear = data.train, config, seed, linear
        auto = config.noise == "auto"
        few = len(data.train.text) < (AUTO_PAIRS if auto else FEWEST_PAIRS)
        self._keeps_all = few or config.noise == "none" or (auto and data.raw_images)
        self.trainings = 0 if few else TRAININGS.get(config.noise, 0)

    def part(self, number: int) -> Units:
        """Return the units of training ``number``: all, or those with the captions of a half."""
        if self.trainings == 1:
            return self._units
        return without_captions(self._units, half_of_captions(self._units) != number)

    def sift(self, trained: Sequence[Towers]) -> Sifted | None:
        """Judge the pairs by the towers of the trainings; None if all are kept."""
        if self._keeps_all:
            return None
        belief = self._belief(trained, np.random.default_rng([self._seed, len(self._units)]))
        if belief is None:
            return None
        sifted = Sifted(self._units, belief)
        if sifted.kept.mean() < FEWEST_KEPT:
            log.warning(
                "noise=%s considers %.0f %% of the pairs wrong, too many to be used: all are kept",
                self._config.noise,
                100 * (1 - sifted.kept.mean()),
            )
            return None
        return sifted

    def _belief(self, trained: Sequence[Towers], rng: np.random.Generator) -> Float64 | None:
        """Return the probability that each pair is right, (c,); None if "auto" keeps all."""
        units, rule, temperature = self._units, self._config.noise, self._config.temperature
        if rule == "small-loss":
            rows = np.arange(len(units.text))
            return by_gaussians(Losses.of(trained[0], units, rows, temperature, rng).own)
        shares = self.shares(trained, rng)
        belief = by_chance(shares)
        if rule == "policy":
            half = half_of_captions(units)
            return policy_belief(units, belief, half, trained, temperature, rng)
        many = AUTO_FROM <= wrong_share(shares) <= 1 - AUTO_FROM
        seen = many and separation(belief) >= AUTO_SEPARATION
        return belief if rule != "auto" or seen else None

    def shares(self, trained: Sequence[Towers], rng: np.random.Generator) -> Float64:
        """Return the share of random pairs with a smaller loss than each pair, (c,).

        ``trained``: the towers of both halves, linear models if empty.
        """
        units, temperature = self._units, self._config.temperature
        towers = trained or [self._linear(self.part(number)) for number in (0, 1)]
        shares, half = np.empty(len(units.text)), half_of_captions(units)
        for number in (0, 1):
            rows = np.flatnonzero(half == number)
            losses = Losses.of(towers[1 - number], units, rows, temperature, rng)
            shares[rows] = losses.shares()
        return shares


def half_of_captions(units: Units) -> Int64:
    """Return the half of each caption, (c,) of 0 and 1: the captions of a unit in turn."""
    unit = units.unit_of_rows("text")
    return np.asarray((np.arange(len(unit)) - units.text_offsets[unit] + unit) % 2)

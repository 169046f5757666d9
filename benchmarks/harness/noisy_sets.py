"""Data of which a share of the captions belongs to other pictures.

Made of a data set of :mod:`harness.caption_sets`: captions of training pictures are exchanged at
random. Which ones are wrong is known to the measurement alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness import semi_sets
from xmodal.features.rows import FeatureRows
from xmodal.features.units import Bool, Units
from xmodal.training.methods.contrastive.noise import without_captions

EXCHANGED = 1_000_003
"""Part of the random seed."""


@dataclass(frozen=True)
class NoisySet:
    """Training units, which of their captions are wrong, (c,), and the units that are measured."""

    train: Units
    wrong: Bool
    measured: Units

    def right_pairs(self) -> Units:
        """Return the training units without wrong captions."""
        return without_captions(self.train, self.wrong)


def load(
    name: str, share: float, captions: int, seed: int, folder: Path, pictures: int | None = None
) -> NoisySet:
    """Return a set in which this share of the captions is exchanged, chosen by the seed.

    ``captions``: largest number of captions of a training picture; the first ones are kept.
    ``pictures``: number of training pictures, all if None.
    """
    train, measured = semi_sets.units_of(name, folder)
    if pictures is not None:
        order = np.random.default_rng([EXCHANGED, seed, pictures]).permutation(len(train))
        train = train.take(np.sort(order[:pictures]))
    unit = train.unit_of_rows("text")
    place = np.arange(len(unit)) - train.text_offsets[unit]
    train = without_captions(train, place >= captions)
    rng = np.random.default_rng([EXCHANGED, seed])
    rows = np.arange(len(train.text))
    exchanged = rng.permutation(rows)[: round(share * len(rows))]
    rows[exchanged] = rng.permutation(exchanged)
    unit = train.unit_of_rows("text")
    text = FeatureRows.of(train.text).take(rows)
    noisy = replace(train, text=text, text_key=train.text_key[rows])
    return NoisySet(noisy, unit[rows] != unit, measured)

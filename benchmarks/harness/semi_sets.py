"""Data with few pairs, many pictures without captions and many captions without pictures.

Made of a data set of :mod:`harness.caption_sets`: some training pictures keep their captions. Of
the captions of the others a random pool is kept, whose true pictures are known to the measurement
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness import caption_sets
from xmodal.data.groups import with_groups
from xmodal.data.split import with_roles
from xmodal.features.units import FeatureTable, Units
from xmodal.features.unpaired import Unpaired
from xmodal.training.methods.contrastive.unpaired import Choice

POOL = 15_000
"""Captions without pictures."""


@dataclass(frozen=True)
class SemiSet:
    """Pairs, data without pairs, and the units that are measured.

    ``owner`` (c,): row of the unpaired picture of each unpaired caption.
    """

    paired: Units
    unpaired: Unpaired
    owner: npt.NDArray[np.int64]
    measured: Units

    def truth(self) -> Choice:
        """Return the true pairs of the unpaired data."""
        order = np.argsort(self.owner, kind="stable")
        return Choice(self.owner[order], order)

    def right(self, choice: Choice) -> int:
        """Return how many pairs of a choice are true."""
        return int((self.owner[choice.text] == choice.image).sum())


@lru_cache(maxsize=1)
def units_of(name: str, folder: Path) -> tuple[Units, Units]:
    """Return the training units and the measured ones."""
    given = caption_sets.load(name, folder)
    assert given.features is not None
    data = with_groups(with_roles(given.data, given.options.split_map))
    table = FeatureTable.of(data, given.features)
    train, measured = (
        table.units(table.data.keep(lambda item, part=part: item.split == part))  # type: ignore[misc]
        for part in ("train", "query")
    )
    return train, measured


def load(name: str, paired: int, seed: int, folder: Path) -> SemiSet:
    """Return a set with this number of paired pictures, chosen by the seed."""
    train, measured = units_of(name, folder)
    rng = np.random.default_rng([seed, paired])
    order = rng.permutation(len(train))
    chosen, others = np.sort(order[:paired]), np.sort(order[paired:])
    rest = train.take(others)
    pool = np.sort(rng.permutation(len(rest.text))[:POOL])
    unpaired = Unpaired(rest.image[rest.image_offsets[:-1]], rest.text[pool])
    return SemiSet(train.take(chosen), unpaired, rest.unit_of_rows("text")[pool], measured)

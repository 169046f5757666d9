"""Pairs of a picture and a caption that do not belong together: settings, and units without them.

The pairs are those of :meth:`~xmodal.features.units.Units.caption_pairs`: one for each caption.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from xmodal.data.names import take_names
from xmodal.features.rows import FeatureRows
from xmodal.features.units import Bool, Units

KEPT_FROM = 0.5
"""Smallest probability of a pair that is kept."""


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """Settings for pairs that may be wrong."""

    noise: Literal["auto", "linear", "small-loss", "two-networks", "policy", "none"] = "auto"
    """Which pairs are left out: none, or those that a rule or a policy considers wrong, see
    :mod:`xmodal.training.methods.contrastive.sieve`. "auto": by linear models, if many are wrong
    and are separated from the others."""


@dataclass(frozen=True)
class Sifted:
    """Probability that a pair is right, (c,) for the captions of ``given``, and what is kept."""

    given: Units
    belief: npt.NDArray[np.float64]

    @property
    def kept(self) -> Bool:
        """Which pairs are kept, (c,)."""
        return self.belief >= KEPT_FROM

    def units(self) -> Units:
        """Return the units with the captions of kept pairs; those without any are left out."""
        return without_captions(self.given, ~self.kept)

    def lines(self) -> Iterator[str]:
        """Yield a JSON object for each pair that is left out, the least probable first."""
        image = self.given.caption_pairs()[0]
        rows = np.flatnonzero(~self.kept)
        for row in rows[np.argsort(self.belief[rows], kind="stable")].tolist():
            pair = {
                "picture": self.given.image_ids[image[row]],
                "caption": self.given.text_ids[row],
                "probability": round(float(self.belief[row]), 4),
            }
            yield json.dumps(pair, ensure_ascii=False)


def without_captions(units: Units, removed: Bool) -> Units:
    """Return the units without some captions, (c,), and without those that have none left."""
    rows = np.flatnonzero(~removed)
    counts = np.bincount(units.unit_of_rows("text")[rows], minlength=len(units))
    left = replace(
        units,
        text=FeatureRows.of(units.text).take(rows),
        text_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        text_key=units.text_key[rows],
        text_ids=take_names(units.text_ids, rows),
    )
    return left.take(np.flatnonzero(counts))

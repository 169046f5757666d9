"""Settings for pictures and captions without a pair, and pairs that are chosen of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xmodal.config import check_at_least, check_at_most
from xmodal.features.rows import Int64
from xmodal.features.units import Units, row_keys
from xmodal.features.unpaired import Unpaired


@dataclass(frozen=True, kw_only=True)
class UnpairedConfig:
    """Settings for pictures without captions and captions without pictures."""

    unpaired: Literal[
        "auto", "mutual", "distilled", "soft", "transport", "policy", "nearest", "random", "none"
    ] = "auto"
    """Use of pictures and captions without a pair: which captions are chosen for pictures
    (:mod:`xmodal.training.methods.contrastive.selection`), or the distilled similarities of several
    towers. "auto": mutual, if there are as many pictures, and captions, without a pair as pairs."""
    unpaired_weight: float = 0.3
    """Weight of a chosen pair in the contrast; a given pair has 1."""
    unpaired_rounds: int = 2
    """Trainings with chosen pairs, each with the choice of the towers before it."""
    unpaired_neighbours: int = 10
    """Nearest captions of a picture, and pictures of a caption, that may be chosen."""
    unpaired_temperature: float = 0.05
    """Temperature of softmaxes over similarities, for all rules with probabilities."""
    unpaired_students: int = 4
    """Towers whose similarities are averaged for "distilled"."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "unpaired_rounds", "unpaired_neighbours", "unpaired_students")
        check_at_least(self, 1e-9, "unpaired_weight")
        check_at_least(self, 1e-3, "unpaired_temperature")
        check_at_most(self, 1, "unpaired_weight")


@dataclass(frozen=True)
class Choice:
    """Chosen pairs of unpaired data: rows of pictures, ascending, and rows of captions, (m,)."""

    image: Int64
    text: Int64

    def __len__(self) -> int:
        return len(self.image)


def join(paired: Units, unpaired: Unpaired, choice: Choice) -> Units:
    """Return ``paired`` followed by a unit for each picture with chosen captions.

    All features are copied; the chosen units have no labels.
    """
    pictures, counts = np.unique(choice.image, return_counts=True)
    text = np.concatenate([paired.text[:], unpaired.text[choice.text]])
    ends = [np.arange(1, len(pictures) + 1), np.cumsum(counts)]
    image_offsets, text_offsets = (
        np.concatenate([offsets, offsets[-1] + more])
        for offsets, more in zip((paired.image_offsets, paired.text_offsets), ends, strict=True)
    )
    none = np.zeros((len(pictures), paired.labels.shape[1]), np.bool_)
    return Units(
        [*paired.ids, *(f"chosen {row}" for row in pictures)],
        np.concatenate([paired.image[:], unpaired.image[pictures]]),
        text,
        image_offsets,
        text_offsets,
        np.concatenate([paired.labels, none]),
        np.concatenate([paired.labelled, np.zeros(len(pictures), np.bool_)]),
        row_keys(text),
        [*paired.image_ids, *(f"chosen {row}" for row in pictures)],
        [*paired.text_ids, *(f"chosen {row}" for row in choice.text)],
    )

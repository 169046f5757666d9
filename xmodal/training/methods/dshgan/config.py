"""Settings of DSH-GANs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xmodal.config import check_at_least, check_at_most
from xmodal.training.objective import ClassGroundwork


@dataclass(frozen=True, kw_only=True)
class Config(ClassGroundwork):
    """Settings."""

    epochs: int = 14
    synthetic: bool = True
    """Off: as many triplets, all of them real; no generator, no adversary."""
    condition: Literal["label", "text"] = "label"
    """What synthetic pairs are made from; texts need no label at all."""
    synthetic_share: float = 0.5
    """Part of the triplet loss that real-synthetic triplets have; real-real ones have the rest."""
    synthetic_classes: float = 0.0
    """Weight of the cross-entropy of synthetic items to the codewords of their conditions."""
    warmup: int = 2
    """Epochs in which synthetic items do not teach the hash network yet."""
    pretraining: int = 200
    """Steps of generator and adversary before the first epoch. In pixel mode the generator learns
    to make real pairs again: the network that judges pixels is the one that learns to hash them."""
    asking: float = 0.25
    """Share of a batch for which synthetic pairs are made; fewer are faster."""
    adversary: float = 0.1
    """Weight of the adversary's loss in the network that it shares with the towers (pixel mode)."""
    penalty: float = 1.0
    """Weight of the penalty on the adversary's slope."""
    remake: float = 1.0
    """Weight of making real pairs again, which keeps what is made apart from each other; the
    adversary and the hash network together pull as strongly as a weight of 1."""
    noise: int = 32
    """Length of z."""
    latent: int = 256
    """Width of what both halves of a synthetic pair are made of."""
    generator_rate: float = 2e-3
    adversary_rate: float = 3e-3

    triplet: float = 3.0
    """Weight of the hinge on x+ and x-."""
    margin: float = 0.2
    """m, as a share of the bits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "noise", "latent")
        check_at_least(self, 0, "warmup", "pretraining", "adversary", "synthetic_classes")
        check_at_least(self, 0, "penalty", "remake", "triplet", "synthetic_share")
        check_at_least(self, 1e-9, "generator_rate", "adversary_rate", "margin", "asking")
        check_at_most(self, 1, "synthetic_share", "margin", "asking")

"""Settings of DSH-GANs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xmodal.config import check_at_least, check_at_most
from xmodal.training.objective import ClassObjectiveConfig


@dataclass(frozen=True, kw_only=True)
class Config(ClassObjectiveConfig):
    """Settings of DSH-GANs."""

    epochs: int = 14
    synthetic: bool = True
    """False: the same number of triplets, all of real pairs; no generator and no adversary."""
    condition: Literal["label", "text"] = "label"
    """Condition of the generator: the labels of a pair, or its text, which needs no labels."""
    synthetic_share: float = 0.5
    """Share of real-synthetic triplets in the triplet loss; real-real triplets have the rest."""
    synthetic_classes: float = 0.0
    """Weight of the cross-entropy of synthetic items to the prototypes of their classes."""
    warmup: int = 2
    """Epochs in which synthetic items are not in the loss of the hash network."""
    pretraining: int = 200
    """Steps of generator and adversary before the first epoch. With pixels the generator is trained
    on reconstruction alone, because the adversary shares the network of the image tower."""
    synthetic_queries: float = 0.25
    """Share of a batch that is the query of synthetic pairs; a smaller share is faster."""
    adversary: float = 0.1
    """Weight of the adversary's loss in the network that it shares with the towers (pixels)."""
    penalty: float = 1.0
    """Weight of the R1 penalty on the adversary's gradient."""
    reconstruction_weight: float = 1.0
    """Weight of the reconstruction of real pairs, which prevents mode collapse. The gradient of the
    other terms is scaled to the norm of a reconstruction of weight 1."""
    noise: int = 32
    """Width of the noise z."""
    latent: int = 256
    """Width of the latent from which image and text of a synthetic pair are made."""
    generator_rate: float = 2e-3
    adversary_rate: float = 3e-3

    triplet: float = 3.0
    """Weight of the hinge on positives x+ and negatives x-."""
    margin: float = 0.2
    """m, as a share of the bits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "noise", "latent")
        check_at_least(self, 0, "warmup", "pretraining", "adversary", "synthetic_classes")
        check_at_least(self, 0, "penalty", "reconstruction_weight", "triplet", "synthetic_share")
        check_at_least(
            self, 1e-9, "generator_rate", "adversary_rate", "margin", "synthetic_queries"
        )
        check_at_most(self, 1, "synthetic_share", "margin", "synthetic_queries")

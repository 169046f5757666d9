"""Settings of DSH-GANs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xmodal.settings import check_at_least, check_at_most


@dataclass(frozen=True)
class Config:
    """Settings; the defaults stand here and nowhere else."""

    epochs: int = 30
    batch: int = 512
    """Pairs a step; fewer where an epoch would have under 8 steps."""
    hidden: int = 512
    feature_dropout: float = 0.3
    """Share of the features that a training step hides from the towers."""
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2

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
    pretraining: int = 400
    """Steps of generator and adversary before the first epoch. In feature mode alone: the network
    that judges pixels is the one that learns to hash them, and does both from the first epoch."""
    asking: float = 0.5
    """Share of a batch for which synthetic pairs are made; fewer are faster."""
    adversary: float = 0.1
    """Weight of the adversary's loss in the network that it shares with the towers (pixel mode)."""
    penalty: float = 1.0
    """Weight of the penalty on the adversary's slope."""
    remake: float = 3.0
    """Weight of making real pairs again, which keeps what is made apart from each other."""
    noise: int = 32
    """Length of z."""
    latent: int = 256
    """Width of what both halves of a synthetic pair are made of."""
    generator_rate: float = 1e-3
    adversary_rate: float = 3e-3

    triplet: float = 3.0
    """Weight of the hinge on x+ and x-."""
    margin: float = 0.2
    """m, as a share of the bits."""
    classes: float = 3.0
    """Weight of the cross-entropy to the classes' codewords."""
    certainty: float = 0.85
    """Posterior of a class whose codeword a code equals while the other codewords are orthogonal:
    the more classes, the lower the temperature has to be."""
    pseudo_labels: bool = True
    """Whether unlabelled pairs learn the classes that both of their sides together suggest."""
    pairs: float = 0.7
    """Weight of the contrast of natural pairs and other matches."""
    match_share: float = 0.3
    """How much of that contrast goes to all likely matches, the rest to the natural pair."""
    temperature: float = 0.1
    """Of softmaxes over code similarities, which lie in [-1, 1]."""
    neighbours: float = 2.0
    """Weight of keeping neighbours in the shared space, for pairs whose class is in doubt."""
    neighbour_temperature: float = 0.1
    directions: int = 64
    """Canonical directions of the shared space."""
    quantise: float = 0.1
    balance: float = 0.1
    decorrelate: float = 0.1
    code_critic: float = 0.0
    """Weight of a critic that pushes codes towards coin flips."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "epochs", "hidden", "directions", "noise", "latent")
        check_at_least(self, 2, "batch")
        check_at_least(self, 0, "weight_decay", "warmup", "pretraining", "adversary")
        check_at_least(self, 0, "synthetic_classes")
        check_at_least(self, 0, "penalty", "remake", "triplet", "classes", "pairs", "neighbours")
        check_at_least(self, 0, "quantise", "balance", "decorrelate", "code_critic")
        rates = ("learning_rate", "generator_rate", "adversary_rate")
        check_at_least(self, 1e-9, *rates, "temperature", "neighbour_temperature")
        check_at_least(self, 1e-9, "margin", "asking")
        shares = ("feature_dropout", "match_share", "synthetic_share")
        check_at_least(self, 0, *shares)
        check_at_most(self, 1, *shares, "margin", "asking")
        check_at_least(self, 0.6, "certainty")
        check_at_most(self, 0.9999, "certainty")

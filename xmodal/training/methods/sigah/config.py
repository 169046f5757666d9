"""Settings of SiGAH."""

from __future__ import annotations

from dataclasses import dataclass

from xmodal.config import check_at_least, check_at_most


@dataclass(frozen=True)
class Config:
    """Settings of SiGAH, for one modality and for two."""

    epochs: int = 30
    batch: int = 256
    """Decoded items a step; fewer where an epoch would have under 8 steps."""
    learning_rate: float = 1e-2
    """Learning rate of W and c, relative to their root mean square at the start."""
    feature_dropout: float = 0.0
    """Dropout rate of the features in the input of W."""

    adversary: bool = True
    """Train an autoencoder as discriminator; without it L_G is alpha L_cs and the terms below."""
    alpha: float = 1.0
    """Weight of L_cs."""
    sparsity: float = 0.01
    """mu: weight of the mean of |s| in L_cs."""
    units: int = 512
    """Units of the sparse code s."""
    discriminator_units: int = 128
    """Units of the autoencoder's hidden layer."""
    gamma: float = 0.5
    """Target of l(x') / l(x) in the balance of BEGAN."""
    balance_rate: float = 1e-3
    """lambda_k."""
    network_rate: float = 1e-3
    """Learning rate of decoders and autoencoders."""

    neighbours: float = 1.0
    """Weight of the neighbour embedding."""
    nearest: int = 10
    """Neighbours of an item."""
    neighbours_per_item: int = 3
    """Neighbours that are added to a step for each item."""
    balance: float = 0.1
    decorrelate: float = 0.1

    pairs: float = 1.0
    """Weight of the contrastive loss of natural pairs, with two modalities."""
    match_share: float = 0.3
    """Share of the contrastive target for neighbours; the natural pair has the rest."""
    temperature: float = 0.1
    """Temperature of the softmax over code similarities, which lie in [-1, 1]."""
    directions: int = 64
    """Canonical directions of the space in which neighbours of pairs are computed."""
    code_critic: float = 0.0
    """Weight of a critic that compares codes with random bits; 0: no critic."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "epochs", "units", "discriminator_units", "nearest")
        check_at_least(self, 1, "neighbours_per_item", "directions")
        check_at_least(self, 2, "batch")
        weights = ("alpha", "sparsity", "neighbours", "balance", "decorrelate", "pairs")
        shares = ("feature_dropout", "match_share", "gamma", "balance_rate")
        check_at_least(self, 0, *weights, *shares, "code_critic")
        check_at_least(self, 1e-9, "learning_rate", "network_rate", "temperature")
        check_at_most(self, 1, *shares)

"""The networks of SiGAH: towers with decoders, autoencoder discriminators, standardisers."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from xmodal.encoders.towers import Towers
from xmodal.modality import Modality
from xmodal.training.losses import straight_through_sign
from xmodal.training.methods.sigah.config import Config

SENSING_RATIO = 4
"""Dimensions of the features for each row of Phi."""
Features = dict[Modality, torch.Tensor]
"""Features or codes of each modality, (n, dim)."""


class Decoder(nn.Module):
    """Codes (n, bits) of -1 and +1 -> synthetic features (n, dim), through a sparse code."""

    def __init__(self, bits: int, dim: int, units: int) -> None:
        super().__init__()
        self.sparse = nn.Linear(bits, units)
        self.atoms = nn.Parameter(torch.randn(units, dim))
        self.offset = nn.Parameter(torch.zeros(dim))

    def forward(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x' = V s + f (n, dim), and s = ReLU(U b + e), (n, units)."""
        units, dim = self.atoms.shape
        s = torch.relu(self.sparse(codes))
        atoms = functional.normalize(self.atoms, dim=1) * (dim / units) ** 0.5
        return s @ atoms + self.offset, s


class AutoencoderDiscriminator(nn.Module):
    """The discriminator of BEGAN: its score is the reconstruction error of an autoencoder.

    ``k`` weights the error of synthetic features in its loss (Berthelot et al., 2017).
    """

    k: torch.Tensor

    def __init__(self, dim: int, units: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, units), nn.ReLU(), nn.Linear(units, dim))
        self.register_buffer("k", torch.zeros(()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """l(v) = |v - AE(v)|^2, mean over the rows and dimensions of (n, dim)."""
        reconstructed: torch.Tensor = self.layers(features)
        return (features - reconstructed).square().mean()

    def update_balance(self, real: float, fake: float, gamma: float, rate: float) -> None:
        """k <- k + rate (gamma l(x) - l(x')), clamped to [0, 1]."""
        self.k += rate * (gamma * real - fake)
        self.k.clamp_(0, 1)


class Standardiser(nn.Module):
    """Centres features and scales all of them alike to a mean variance of 1; holds Phi."""

    mean: torch.Tensor
    scale: torch.Tensor
    phi: torch.Tensor

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        mean, dim = features.mean(0), features.shape[1]
        deviation = (features - mean).square().mean().sqrt()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / torch.where(deviation > 1e-6, deviation, torch.ones(())))
        rows = max(1, dim // SENSING_RATIO)
        self.register_buffer("phi", torch.randn(dim, rows) / rows**0.5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, dim) -> standardised features (n, dim), the target of the decoder."""
        return (features - self.mean) * self.scale

    def sensing_loss(self, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """|Phi x' - Phi x|^2 / d, mean over rows (n, d): |x' - x|^2 / d in expectation."""
        return ((fake - real) @ self.phi).square().sum(1).mean() / real.shape[1]


class Generator(nn.Module):
    """W and c of each modality (the towers), and a decoder to each modality."""

    def __init__(self, towers: Towers, features: Features, config: Config) -> None:
        super().__init__()
        dims = {modality: rows.shape[1] for modality, rows in features.items()}
        self.towers = towers
        self.standardisers = nn.ModuleDict(
            {modality: Standardiser(rows) for modality, rows in features.items()}
        )
        self.decoders = nn.ModuleDict(
            {modality: Decoder(towers.bits, dim, config.units) for modality, dim in dims.items()}
        )
        self.sharpness = nn.Parameter(torch.tensor(10.0).log())

    def standardiser(self, modality: Modality) -> Standardiser:
        """Return the standardiser of one modality."""
        return cast(Standardiser, self.standardisers[modality])

    def codes(self, part: Features, dropout: float) -> Features:
        """Codes of -1 and +1 with a straight-through gradient, (n, bits) of each modality."""
        inputs = {modality: functional.dropout(rows, dropout) for modality, rows in part.items()}
        return {
            modality: straight_through_sign(torch.tanh(self.towers.tower(modality).head(rows)))
            for modality, rows in inputs.items()
        }

"""The networks of SiGAH beside the towers: decoder and judge, and the scale both work at."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

SENSED = 4  # dimensions for each row of Phi


class Decoder(nn.Module):
    """Codes (n, bits) of -1 and +1 -> synthetic features (n, dim), by way of a sparse code."""

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


class Judge(nn.Module):
    """An auto-encoder: its error is small for what is like the data that it learned from.

    ``k`` is the balance: how much it also learns to rebuild synthetic features badly.
    """

    k: torch.Tensor

    def __init__(self, dim: int, units: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, units), nn.ReLU(), nn.Linear(units, dim))
        self.register_buffer("k", torch.zeros(()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """l(v) = |v - AE(v)|^2, mean over the rows and dimensions of (n, dim)."""
        rebuilt: torch.Tensor = self.layers(features)
        return (features - rebuilt).square().mean()

    def follow(self, real: float, fake: float, gamma: float, rate: float) -> None:
        """k <- k + rate (gamma l(x) - l(x')), kept in [0, 1]."""
        self.k += rate * (gamma * real - fake)
        self.k.clamp_(0, 1)


class Scale(nn.Module):
    """Centres features and divides by one number, so that their mean variance is 1; and Phi."""

    mean: torch.Tensor
    by: torch.Tensor
    phi: torch.Tensor

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        mean, dim = features.mean(0), features.shape[1]
        spread = (features - mean).square().mean().sqrt()
        self.register_buffer("mean", mean)
        self.register_buffer("by", 1 / torch.where(spread > 1e-6, spread, torch.ones(())))
        rows = max(1, dim // SENSED)
        self.register_buffer("phi", torch.randn(dim, rows) / rows**0.5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, dim) as the decoder should make them."""
        return (features - self.mean) * self.by

    def sensing(self, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """|Phi x' - Phi x|^2 / d, mean over rows (n, d): |x' - x|^2 / d in expectation."""
        return ((fake - real) @ self.phi).square().sum(1).mean() / real.shape[1]

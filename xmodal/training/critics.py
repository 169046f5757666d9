"""Wasserstein critics of feature rows and of codes.

The second adversary of multi-adversarial semantic hashing (Wang, Liu, Zhao, CIKM 2018) is a critic
of codes that replaces a norm penalty: it compares codes with uniform random bits, so it is minimal
for bits that are balanced and independent.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from xmodal.training.losses import gradient_penalty, straight_through_sign

PENALTY = 10.0
"""Weight of the gradient penalty, as in Gulrajani et al., NeurIPS 2017."""


class Critic(nn.Module):
    """A Wasserstein critic with gradient penalty: rows (n, width) -> scores.

    It maximises mean score(real) - mean score(fake), which for gradients of norm 1 is the
    Wasserstein-1 distance of both distributions (Arjovsky et al., ICML 2017). Distance and loss are
    divided by sqrt(width), the norm of a row of +-1, so that loss weights do not depend on the
    width; columns should have that scale, because the critic learns too slowly otherwise.
    """

    def __init__(self, width: int, *, hidden: int = 128, rate: float = 1e-3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )
        self.scale = math.sqrt(width)
        self.optimiser = torch.optim.Adam(self.layers.parameters(), lr=rate, betas=(0.0, 0.9))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (n, width) -> scores (n,)."""
        out: torch.Tensor = self.layers(rows)
        return out.squeeze(1)

    def update(self, real: torch.Tensor, fake: torch.Tensor) -> float:
        """Make one step on rows (n, width) of each kind; return the distance before it."""
        distance = self(real).mean() - self(fake).mean()
        self.optimiser.zero_grad()
        (PENALTY * gradient_penalty(self, real, fake) - distance).backward()
        self.optimiser.step()
        return float(distance.detach()) / self.scale

    def generator_loss(self, rows: torch.Tensor) -> torch.Tensor:
        """-mean score of the rows (n, width), which the network that makes them minimises."""
        scores: torch.Tensor = self(rows)
        return -scores.mean() / self.scale

    def state(self, name: str) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Return module and optimiser for the checkpoint of a run."""
        return {name: self.layers, f"{name} steps": self.optimiser}


class CodeCritic(Critic):
    """A critic that compares codes (n, bits) with uniform random bits.

    ``steps``: updates for each step of the hash network. The input is the sign of the codes, with a
    straight-through gradient, so that the size of relaxed codes does not matter.
    """

    def __init__(self, bits: int, *, hidden: int = 128, rate: float = 1e-3, steps: int = 5) -> None:
        super().__init__(bits, hidden=hidden, rate=rate)
        self.steps = steps

    def update_on(self, relaxed: torch.Tensor) -> float:
        """Make ``steps`` updates on relaxed codes (n, bits); return the last distance."""
        fake, distance = straight_through_sign(relaxed.detach()), 0.0
        for _ in range(self.steps):
            real = torch.randint(0, 2, fake.shape, device=fake.device).to(fake) * 2 - 1
            distance = self.update(real, fake)
        return distance

    def generator_loss(self, relaxed: torch.Tensor) -> torch.Tensor:
        """-mean score of relaxed codes (n, bits), which the hash network minimises."""
        return super().generator_loss(straight_through_sign(relaxed))

"""Critics, for any method: what is real, and what is not, as far apart as slopes of 1 allow.

The second adversary of multi-adversarial semantic hashing (Wang, Liu, Zhao, CIKM 2018) is a critic
of codes, there in place of a norm penalty: bits that are binary, on half of the time and
independent of each other cannot be told from coin flips, whatever one looks at.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from xmodal.training.losses import gradient_penalty, sign_through

PENALTY = 10.0
"""Weight of the gradient penalty, that of Gulrajani et al."""


class Critic(nn.Module):
    """Scores rows (n, width). A Wasserstein critic with gradient penalty.

    It raises mean score(real) - mean score(fake), which at slopes of 1 is how far one has to move
    the fake rows until nothing tells them from real ones (Arjovsky et al., ICML 2017). Distance and
    term are divided by sqrt(width), the length of a row of +-1, so that a weight means the same for
    any width; columns should be of about that size, or the critic learns far too slowly.
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
        self.length = math.sqrt(width)
        self.updates = torch.optim.Adam(self.layers.parameters(), lr=rate, betas=(0.0, 0.9))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (n, width) -> scores (n,)."""
        out: torch.Tensor = self.layers(rows)
        return out.squeeze(1)

    def compare(self, real: torch.Tensor, fake: torch.Tensor) -> float:
        """One update on rows (n, width) of each kind; the distance that it saw before."""
        apart = self(real).mean() - self(fake).mean()
        self.updates.zero_grad()
        (PENALTY * gradient_penalty(self, real, fake) - apart).backward()
        self.updates.step()
        return float(apart.detach()) / self.length

    def term(self, rows: torch.Tensor) -> torch.Tensor:
        """What whoever makes the rows (n, width) minimises: their -mean score."""
        scores: torch.Tensor = self(rows)
        return -scores.mean() / self.length

    def state(self, name: str) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """What a run saves of it."""
        return {name: self.layers, f"{name} steps": self.updates}


class CodeCritic(Critic):
    """Scores codes (n, bits); its difference between coin flips and codes is their distance.

    ``steps`` updates for each of the hash network's. It sees signs alone, passed straight through:
    nobody can win by telling .9 from 1.
    """

    def __init__(self, bits: int, *, hidden: int = 128, rate: float = 1e-3, steps: int = 5) -> None:
        super().__init__(bits, hidden=hidden, rate=rate)
        self.steps = steps

    def learn(self, relaxed: torch.Tensor) -> float:
        """Update on relaxed codes (n, bits); the distance between coin flips and them it sees."""
        fake, apart = sign_through(relaxed.detach()), 0.0
        for _ in range(self.steps):
            real = torch.randint(0, 2, fake.shape, device=fake.device).to(fake) * 2 - 1
            apart = self.compare(real, fake)
        return apart

    def term(self, relaxed: torch.Tensor) -> torch.Tensor:
        """What the hash network minimises: -mean score of its codes (n, bits)."""
        return super().term(sign_through(relaxed))

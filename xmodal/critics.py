"""A critic of codes, for any method: it pushes codes towards fair coin flips.

The second adversary of multi-adversarial semantic hashing (Wang, Liu, Zhao, CIKM 2018), which is
there in place of a norm penalty: bits that are binary, on half of the time and independent of each
other cannot be told from coin flips, whatever one looks at.
"""

from __future__ import annotations

import torch
from torch import nn

from xmodal.losses import gradient_penalty, sign_through

PENALTY = 10.0
"""Weight of the gradient penalty, that of Gulrajani et al."""


class CodeCritic(nn.Module):
    """Scores codes (n, bits); its difference between coin flips and codes is their distance.

    A Wasserstein critic with gradient penalty, ``steps`` updates for each of the hash network's.
    It sees signs alone, passed straight through: nobody can win by telling .9 from 1. ``updates``
    is its optimiser, to be saved with it.
    """

    def __init__(self, bits: int, *, hidden: int = 256, rate: float = 1e-3, steps: int = 5) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.Sequential(
            nn.Linear(bits, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )
        self.updates = torch.optim.Adam(self.layers.parameters(), lr=rate, betas=(0.0, 0.9))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (n, bits) of -1 and +1 -> scores (n,)."""
        out: torch.Tensor = self.layers(codes)
        return out.squeeze(1)

    def learn(self, relaxed: torch.Tensor) -> float:
        """Update on relaxed codes (n, bits); the distance between coin flips and them it sees."""
        fake = sign_through(relaxed.detach())
        apart = torch.zeros(())
        for _ in range(self.steps):
            real = torch.randint(0, 2, fake.shape, device=fake.device).to(fake) * 2 - 1
            apart = self(real).mean() - self(fake).mean()
            self.updates.zero_grad()
            (PENALTY * gradient_penalty(self, real, fake) - apart).backward()
            self.updates.step()
        return float(apart.detach())

    def term(self, relaxed: torch.Tensor) -> torch.Tensor:
        """What the hash network minimises: -mean score of its codes (n, bits)."""
        scores: torch.Tensor = self(sign_through(relaxed))
        return -scores.mean()

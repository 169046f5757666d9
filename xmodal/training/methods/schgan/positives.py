"""A second job for a generator: which candidates become matches of a pair whose class is in doubt.

The policy approximates relevance itself, as the generator of IRGAN does (Wang et al., SIGIR 2017).
Its reward is what the discriminator thinks of a candidate from both sides: the correlation score
sigmoid((r - mean of d(image_i, text_j) and d(image_j, text_i)) / width). What it chooses takes a
share of the contrast's target that is as large as the doubt.

``benchmarks/schgan.py`` measures it as the row "positives".
"""

from __future__ import annotations

import torch
from torch import nn

from xmodal.towers import Towers
from xmodal.training import losses
from xmodal.training import policy as reinforce
from xmodal.training.methods.schgan.config import Config
from xmodal.training.methods.schgan.networks import Scene

RADIUS, WIDTH = 0.25, 0.08
"""Distance, as a share of the bits, at which the score is a half, and how fast it falls there."""


Two = tuple[torch.Tensor, torch.Tensor]
"""Of image queries over texts, of text queries over images."""


class Relevance(nn.Module):
    """p(match | query) over the batch, with a temperature that follows the run."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.policy = reinforce.Policy(towers.image.width, towers.text.width)
        self.register_buffer("temperature", torch.tensor(0.1))

    def log_policies(self, scene: Scene) -> Two:
        """log p of both directions, each (n, n)."""
        between = self.policy(scene.image_vectors, scene.text_vectors)
        others = ~torch.eye(len(between), dtype=torch.bool, device=between.device)
        temperature = float(self.get_buffer("temperature"))
        to_texts = reinforce.log_policy(between, others, temperature)
        return to_texts, reinforce.log_policy(between.T, others, temperature)

    def share_of(self, scene: Scene, target: torch.Tensor, doubt: torch.Tensor, most: float) -> Two:
        """The contrast's targets of both directions, each (n, n), with the policy's share in."""
        share = most * doubt[:, None]
        with torch.no_grad():
            chosen = [log_p.exp() for log_p in self.log_policies(scene)]
        return (1 - share) * target + share * chosen[0], (1 - share) * target + share * chosen[1]


def step(
    g: Relevance, optimiser: torch.optim.Optimizer, scene: Scene, config: Config
) -> dict[str, float]:
    """One step of the policy towards what the discriminator takes for matches."""
    between = losses.distance(scene.image, scene.text).detach()
    score = torch.sigmoid((RADIUS - (between + between.T) / 2) / WIDTH)
    policies = g.log_policies(scene)
    objectives = [reinforce.exact_objective(p, score, config.policy_entropy) for p in policies]
    optimiser.zero_grad()
    torch.stack(objectives).sum().backward()
    optimiser.step()
    used = float(torch.stack([reinforce.effective_share(p.detach()) for p in policies]).mean())
    reinforce.follow(g.get_buffer("temperature"), used, config.positive_uses)
    rewards = [(p.detach().exp() * score).sum(1).mean() for p in policies]
    return {"positive reward": float(torch.stack(rewards).mean())}

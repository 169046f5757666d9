"""A selection policy over candidates: network, probabilities, rewards, objectives."""

from __future__ import annotations

import math

import torch
from torch import nn

from xmodal.training.losses import distance


class Policy(nn.Module):
    """One linear head a modality on the input vectors of the towers' heads; distances between them.

    No weight is shared with the hash network. ``space``: width of the policy's embeddings.
    """

    def __init__(self, image_width: int, text_width: int, space: int = 64) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.LayerNorm(image_width), nn.Linear(image_width, space))
        self.text = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, space))

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Vectors (n, image_width), (m, text_width) -> distances (n, m)."""
        return distance(torch.tanh(self.image(image)), torch.tanh(self.text(text)))


def log_policy(distances: torch.Tensor, allowed: torch.Tensor, temperature: float) -> torch.Tensor:
    """log p(x_j | q_i) = log softmax_j(-d_ij / temperature) over the allowed candidates, (n, m).

    SCH-GAN eq. 3 with a temperature. Other candidates have -inf; so has a row without candidates.
    """
    logits = (-distances / temperature).masked_fill(~allowed, float("-inf"))
    some = allowed.any(1, keepdim=True)
    out = torch.log_softmax(torch.where(some, logits, torch.zeros_like(logits)), dim=1)
    return out.masked_fill(~allowed, float("-inf"))


def margin_reward(
    positive: torch.Tensor, distances: torch.Tensor, margin: float, sigma: float
) -> torch.Tensor:
    """r_ij = exp(-|margin + d_i+ - d_ij| / sigma), (n, m): 1 for a candidate on the margin.

    The released code has 10^(-|beta + d+ - d-|), a fixed width.
    """
    return torch.exp(-(margin + positive[:, None] - distances).abs() / sigma)


def entropy(log_p: torch.Tensor) -> torch.Tensor:
    """-sum_j p log p of each row, (n,); 0 for rows without candidates."""
    return -(log_p.exp() * log_p.masked_fill(log_p.isinf(), 0)).sum(1)


def exact_objective(
    log_p: torch.Tensor, reward: torch.Tensor, entropy_weight: float
) -> torch.Tensor:
    """-mean_i [sum_j p_ij r_ij + tau H(p_i)]: the exact expectation, without sampling variance."""
    return -((log_p.exp() * reward).sum(1) + entropy_weight * entropy(log_p)).mean()


def reinforce_objective(
    log_p: torch.Tensor, reward: torch.Tensor, picks: torch.Tensor, entropy_weight: float
) -> torch.Tensor:
    """-mean_i [mean_s log p(x_s) (r_s - mean of the other rewards) + tau H(p_i)].

    REINFORCE (Williams, 1992) with the leave-one-out baseline of Kool et al., 2019, which keeps the
    gradient unbiased. ``picks`` (n, s): sampled candidates, s >= 2, else ValueError. 0 for n = 0.
    """
    samples = picks.shape[1]
    if samples < 2:
        raise ValueError(
            f"{samples} picks a query, expected at least 2 for a leave-one-out baseline"
        )
    rewards = reward.gather(1, picks)
    baseline = (rewards.sum(1, keepdim=True) - rewards) / (samples - 1)
    chosen = log_p.gather(1, picks)
    score = (chosen.masked_fill(chosen.isinf(), 0) * (rewards - baseline).detach()).mean(1)
    return -(score + entropy_weight * entropy(log_p)).sum() / max(1, len(picks))


def adapt_temperature(temperature: torch.Tensor, share: float, target: float) -> None:
    """Change a policy's temperature in place, so that its effective share approaches ``target``."""
    step = 0.1 * (math.log(target) - math.log(max(share, 1e-6)))
    temperature.mul_(math.exp(min(0.2, max(-0.2, step)))).clamp_(1e-4, 10)


def effective_share(log_p: torch.Tensor) -> torch.Tensor:
    """exp(entropy) / number of candidates, mean over the rows that have candidates; 0 without rows.

    1 for a uniform policy, 1 / candidates for a deterministic one.
    """
    allowed = (~log_p.isinf()).sum(1)
    rows = allowed > 0
    return (entropy(log_p)[rows].exp() / allowed[rows]).sum() / rows.sum().clamp(min=1)

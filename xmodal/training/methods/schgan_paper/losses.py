"""Losses of both networks of the released SCH-GAN: pure functions, each with its equation.

Relaxed codes u (n, K) lie in (-1, 1); d(u, v) = |u - v|^2 / 4, the release's |h - h'|^2.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from xmodal.training import losses, policy
from xmodal.training.methods.schgan_paper.config import Config, Reward

MIN_STATISTICS_ROWS = 16
"""Codes that the balance and decorrelation of bits need."""


def distances(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """d(u_i, v_j) for all i, j: (n, K), (m, K) -> (n, m)."""
    return losses.distance(u, v) * u.shape[1]


def own_distances(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """d(u_i, v_i), (n, K), (n, K) -> (n,)."""
    return (u - v).square().sum(1) / 4


def rewards(gap: torch.Tensor, kind: Reward, width: float) -> torch.Tensor:
    """Reward of a pick, with f = beta + d+ - d- = ``gap``, of any shape.

    A: sigmoid(max(0, f)); B: exp(-|f| / width), which is 10^-|f| at width 1 / ln 10;
    C: log(1 + exp(max(0, f))).
    """
    if kind == "A":
        return torch.sigmoid(gap.clamp(min=0))
    if kind == "B":
        return torch.exp(-gap.abs() / width)
    return functional.softplus(gap.clamp(min=0))


def reward_width(gap: torch.Tensor, config: Config) -> float:
    """Width of reward B: a constant, or the standard deviation of f over the pool, (n, m)."""
    if config.reward_width == "fixed":
        return 1 / math.log(10)
    return max(float((gap - gap.mean()).square().mean().sqrt()), 1e-3)


def selection_loss(
    log_p: torch.Tensor, reward: torch.Tensor, picks: torch.Tensor, config: Config
) -> torch.Tensor:
    """Loss of the policy for the rewards of its picks; 0 without queries.

    ``log_p`` and ``reward`` (n, m) over the pool, ``picks`` (n, s). Centred: REINFORCE with a
    leave-one-out baseline and entropy. Plain: mean |p - r| for reward B, -mean(r log p) else.
    """
    if config.softmax == "picks":
        log_p = torch.log_softmax(log_p.gather(1, picks), dim=1)
        reward = reward.gather(1, picks)
        picks = torch.arange(picks.shape[1], device=picks.device).expand_as(picks)
    if config.policy_gradient == "centred":
        return policy.reinforce_objective(log_p, reward, picks, config.entropy)
    chosen, taken = log_p.gather(1, picks), reward.gather(1, picks)
    loss = (chosen.exp() - taken).abs() if config.reward == "B" else -chosen * taken
    return loss.sum() / max(1, loss.numel())


def class_loss(
    logits: torch.Tensor, labels: torch.Tensor, known: torch.Tensor, config: Config
) -> torch.Tensor:
    """Mean cross-entropy of sigmoid(``logits``) to ``labels`` (n, c) of the labelled picks.

    ``known`` (n,) bool: labelled picks; ignored as released. 0 without labels.
    """
    if config.class_labels == "all":
        known = torch.ones_like(known)
    each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (each * known[:, None]).sum() / (known.sum() * labels.shape[1]).clamp(min=1)


def hinge(
    positive: torch.Tensor, negative: torch.Tensor, weight: torch.Tensor, margin: float
) -> torch.Tensor:
    """Weighted mean of max(0, beta + d+ - d-); (n,), (n, s), (n, s)."""
    each = (margin + positive[:, None] - negative).clamp(min=0)
    return (weight * each).sum() / weight.sum().clamp(min=1e-6)


def pair_loss(
    positive: torch.Tensor, negative: torch.Tensor, weight: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of sigmoid(-d+) to ``target`` (n,) plus that of sigmoid(-d-) to 0.

    -log sigmoid(-d) = log(1 + e^d) and -log(1 - sigmoid(-d)) = log(1 + e^-d).
    """
    known = target * functional.softplus(positive) + (1 - target) * functional.softplus(-positive)
    others = (weight * functional.softplus(-negative)).sum() / weight.sum().clamp(min=1e-6)
    return known.mean() + others


def bit_regulariser(u: torch.Tensor, config: Config) -> torch.Tensor:
    """K times the weighted quantisation, balance and decorrelation of codes (n, K).

    The last two are left out for fewer than ``MIN_STATISTICS_ROWS`` codes.
    """
    total = config.quantise * losses.quantisation(u)
    if len(u) >= MIN_STATISTICS_ROWS:
        total = total + config.balance * losses.balance(u)
        total = total + config.decorrelate * losses.decorrelation(u)
    return u.shape[1] * total


def class_shares(labels: torch.Tensor, known: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Class shares of items, (n, c): labels where ``known``, else sigmoid(``logits``), normalised.

    Rows of labelled items sum to 1, other rows to at most 1.
    """
    share = torch.where(known[:, None], labels, torch.sigmoid(logits))
    return share / share.sum(1, keepdim=True).clamp(min=1)

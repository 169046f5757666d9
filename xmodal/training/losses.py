"""Losses: pure functions on tensors, each with its equation.

Relaxed codes u (n, K) lie in [-1, 1]. Distances are shares of the bits: for codes of -1 and +1
d(u, v) = |u - v|^2 / 4K is the Hamming distance divided by K.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional


def distance(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """d(u_i, v_j) = |u_i - v_j|^2 / 4K for all i, j: (n, K), (m, K) -> (n, m)."""
    square = u.square().sum(1)[:, None] + v.square().sum(1)[None, :] - 2 * u @ v.T
    return square.clamp(min=0) / (4 * u.shape[1])


def straight_through_sign(u: torch.Tensor) -> torch.Tensor:
    """sign(u) in the forward pass, identity in the backward pass (Bengio et al., 2013)."""
    signs = torch.where(u > 0, 1.0, -1.0)
    return u + (signs - u).detach()


def expected_hinge(
    positive: torch.Tensor, distances: torch.Tensor, weights: torch.Tensor, margin: float
) -> torch.Tensor:
    """Mean over queries of sum_j w_ij max(0, margin + d_i+ - d_ij): SCH-GAN eq. 6 in expectation.

    ``positive`` (n,), ``distances`` and ``weights`` (n, m); each row of weights sums to 1 or is 0.
    """
    hinge = (margin + positive[:, None] - distances).clamp(min=0)
    return (weights * hinge).sum(1).mean()


def contrastive_loss(
    u: torch.Tensor,
    v: torch.Tensor,
    targets: tuple[torch.Tensor, torch.Tensor],
    temperature: float,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over both directions of w_i H(target_i, softmax_j(s_ij)), s = (1 - 2 d) / temperature.

    ``targets``: distributions of u over v and of v over u, each (n, n), rows sum to 1. The identity
    gives InfoNCE on natural pairs (van den Oord et al., 2018); a uniform distribution over all
    matches gives supervised contrastive learning (Khosla et al., 2020); a softmax over similarities
    of frozen features preserves their neighbours. ``weight`` (n,) of the rows, 1 if None.
    """
    logits = (1 - 2 * distance(u, v)) / temperature
    rows = torch.ones(len(u), device=u.device) if weight is None else weight
    forward = soft_cross_entropy(logits, targets[0], rows)
    return (forward + soft_cross_entropy(logits.T, targets[1], rows)) / 2


def contrastive_targets(match_probability: torch.Tensor, share: float) -> torch.Tensor:
    """(1 - share) I + share * P / row sums of P, (n, n): targets of ``contrastive_loss``."""
    own = torch.eye(len(match_probability), device=match_probability.device)
    return (1 - share) * own + share * (match_probability / match_probability.sum(1, keepdim=True))


def soft_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """sum_i w_i H(target_i, softmax(logits_i)) / sum_i w_i; (n, c), (n, c), (n,)."""
    loss = -(target * functional.log_softmax(logits, dim=1)).sum(1)
    return (weight * loss).sum() / weight.sum().clamp(min=1e-6)


def neighbour_embedding(
    u: torch.Tensor, near: torch.Tensor, sharpness: torch.Tensor | float
) -> torch.Tensor:
    """Mean of H(p_i, q_i) over the rows of codes u (n, K) that have a neighbour.

    p_i is uniform over the neighbours of i, ``near`` (n, n) bool; q_ij is the softmax over j != i
    of ``sharpness`` (1 - 2 d_ij). This is stochastic neighbour embedding (Hinton, Roweis, NIPS
    2002) into Hamming space.
    """
    own = torch.eye(len(u), dtype=torch.bool, device=u.device)
    near = near & ~own
    count = near.sum(1)
    logits = (sharpness * (1 - 2 * distance(u, u))).masked_fill(own, -1e9)
    target = near / count.clamp(min=1)[:, None]
    return soft_cross_entropy(logits, target, (count > 0).to(u))


def pairwise_likelihood(
    logits: torch.Tensor, similar: torch.Tensor, dissimilar: torch.Tensor
) -> torch.Tensor:
    """Negative log-likelihood of the similarity labels of each row; all (n, m) -> (n,).

    Half of sum_j s_ij log(1 + exp(-logit_ij)) / sum_j s_ij over similar items, and half of the same
    of +logit over dissimilar ones: both have the same weight, whatever their number (HashNet, Cao
    et al., ICCV 2017). A row without similar (dissimilar) items has no such term.
    """
    near = (similar * functional.softplus(-logits)).sum(1) / similar.sum(1).clamp(min=1e-6)
    far = (dissimilar * functional.softplus(logits)).sum(1) / dissimilar.sum(1).clamp(min=1e-6)
    return (near + far) / 2


def gradient_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor], real: torch.Tensor, fake: torch.Tensor
) -> torch.Tensor:
    """Mean of (|grad critic(x)| - 1)^2 at random points x between real and fake rows, both (n, d).

    Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017, eq. 3.
    """
    mix = torch.rand(len(real), 1, device=real.device)
    between = (mix * real + (1 - mix) * fake).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.square().sum(1).clamp(min=1e-12).sqrt() - 1).square().mean()


def r1_penalty(critic: Callable[[torch.Tensor], torch.Tensor], real: torch.Tensor) -> torch.Tensor:
    """Mean of |grad critic(x)|^2 at real rows (n, d); no gradient reaches the rows.

    Mescheder, Geiger, Nowozin, "Which training methods for GANs do actually converge?", ICML 2018,
    eq. 9.
    """
    at = real.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(at).sum(), at, create_graph=True)
    return slope.square().sum(1).mean()


def quantisation(u: torch.Tensor) -> torch.Tensor:
    """Mean of (|u| - 1)^2: distance of relaxed codes from binary ones."""
    return (u.abs() - 1).square().mean()


def balance(u: torch.Tensor) -> torch.Tensor:
    """Mean over bits of (mean over items of u)^2: 0 if each bit is 1 for half of the items."""
    return u.mean(0).square().mean()


def decorrelation(u: torch.Tensor) -> torch.Tensor:
    """Mean square of the off-diagonal of u'u / n: 0 if bits are uncorrelated."""
    gram = u.T @ u / len(u)
    off = gram - torch.diag(gram.diagonal())
    return off.square().sum() / max(1, u.shape[1] * (u.shape[1] - 1))

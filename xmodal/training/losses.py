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


def sign_through(u: torch.Tensor) -> torch.Tensor:
    """sign(u) in the forward pass, the identity in the backward pass (Bengio et al., 2013)."""
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


def contrast(
    u: torch.Tensor,
    v: torch.Tensor,
    targets: tuple[torch.Tensor, torch.Tensor],
    temperature: float,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Both directions of w_i H(target_i, softmax_j(s_ij)), s = (1 - 2 d) / temperature.

    ``targets``: of u over v and of v over u, each (n, n), rows sum to 1. The identity gives InfoNCE
    on natural pairs (van den Oord et al., 2018); spread over all matches it is supervised contrast
    (Khosla et al., 2020); a softmax of how alike frozen features are keeps their neighbours.
    ``weight`` (n,) of the rows, 1 if None.
    """
    logits = (1 - 2 * distance(u, v)) / temperature
    of = torch.ones(len(u), device=u.device) if weight is None else weight
    there = soft_cross_entropy(logits, targets[0], of)
    return (there + soft_cross_entropy(logits.T, targets[1], of)) / 2


def match_targets(agreement: torch.Tensor, share: float) -> torch.Tensor:
    """(1 - share) I + share * agreement with rows of sum 1, (n, n): what ``contrast`` aims at."""
    own = torch.eye(len(agreement), device=agreement.device)
    return (1 - share) * own + share * (agreement / agreement.sum(1, keepdim=True))


def soft_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """sum_i w_i H(target_i, softmax(logits_i)) / sum_i w_i; (n, c), (n, c), (n,)."""
    loss = -(target * functional.log_softmax(logits, dim=1)).sum(1)
    return (weight * loss).sum() / weight.sum().clamp(min=1e-6)


def neighbours(
    u: torch.Tensor, near: torch.Tensor, sharpness: torch.Tensor | float
) -> torch.Tensor:
    """Mean of H(p_i, q_i): how neighbours are distributed, against what codes (n, K) make of them.

    p_i is even over the neighbours of i, ``near`` (n, n) bool, and q_ij = softmax over j != i of
    ``sharpness`` (1 - 2 d_ij). This is stochastic neighbour embedding (Hinton, Roweis, NIPS 2002)
    into Hamming space. Rows without a neighbour count nothing.
    """
    own = torch.eye(len(u), dtype=torch.bool, device=u.device)
    near = near & ~own
    count = near.sum(1)
    logits = (sharpness * (1 - 2 * distance(u, u))).masked_fill(own, -1e9)
    target = near / count.clamp(min=1)[:, None]
    return soft_cross_entropy(logits, target, (count > 0).to(u))


def pair_likelihood(
    logits: torch.Tensor, similar: torch.Tensor, dissimilar: torch.Tensor
) -> torch.Tensor:
    """Negative log-likelihood of who is similar to whom, of each row; all (n, m) -> (n,).

    Half of sum_j s_ij log(1 + exp(-logit_ij)) / sum_j s_ij, and half of the same of +logit over
    the dissimilar ones: both kinds weigh the same, however rare one is (HashNet, Cao et al., ICCV
    2017). A kind of which a row has none weighs nothing.
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


def real_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor], real: torch.Tensor
) -> torch.Tensor:
    """Mean of |grad critic(x)|^2 at real rows (n, d), whose own gradients stop here.

    Mescheder, Geiger, Nowozin, "Which training methods for GANs do actually converge?", ICML 2018,
    eq. 9.
    """
    at = real.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(at).sum(), at, create_graph=True)
    return slope.square().sum(1).mean()


def quantisation(u: torch.Tensor) -> torch.Tensor:
    """Mean of (|u| - 1)^2: how far relaxed codes are from binary ones."""
    return (u.abs() - 1).square().mean()


def balance(u: torch.Tensor) -> torch.Tensor:
    """Mean over bits of (mean over items of u)^2: zero when each bit is on half of the time."""
    return u.mean(0).square().mean()


def decorrelation(u: torch.Tensor) -> torch.Tensor:
    """Mean square of the off-diagonal of u'u / n: zero when no bit repeats another."""
    gram = u.T @ u / len(u)
    off = gram - torch.diag(gram.diagonal())
    return off.square().sum() / max(1, u.shape[1] * (u.shape[1] - 1))

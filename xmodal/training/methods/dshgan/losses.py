"""Losses of DSH-GANs: pure functions, each with its equation."""

from __future__ import annotations

import torch

from xmodal.training.losses import distance, expected_hinge
from xmodal.training.objective import ImageText


def triplet_loss(
    queries: ImageText,
    items: ImageText,
    match_probability: torch.Tensor,
    positive: torch.Tensor,
    margin: float,
) -> torch.Tensor:
    """Mean over i and four directions of P_ip sum_j w_ij max(0, m - d(q_i, x_j) + d(q_i, x_p)).

    Directions: queries of each modality, items of each modality. ``match_probability`` P (n, m);
    ``positive`` p (n,): x+ of each query; w_ij is proportional to 1 - P_ij over the negatives, the
    items with P_ij <= 1/2.
    """
    negative = (1 - match_probability) * (match_probability <= 0.5)
    certainty = match_probability.gather(1, positive[:, None])
    weights = certainty * negative / negative.sum(1, keepdim=True).clamp(min=1e-6)
    hinges = []
    for query in queries:
        for item in items:
            d = distance(query, item)
            near = d.gather(1, positive[:, None]).squeeze(1)
            hinges.append(expected_hinge(near, d, weights, margin))
    return torch.stack(hinges).mean()


def adversarial_hinge(real: torch.Tensor, synthetic: torch.Tensor) -> torch.Tensor:
    """l_a = mean max(0, 1 - s(real)) + mean max(0, 1 + s(synthetic)); scores (n,), (m,)."""
    return (1 - real).clamp(min=0).mean() + (1 + synthetic).clamp(min=0).mean()


def scale_to(reference: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Scale ``gradient`` (n, d) to the norm of ``reference``."""
    factor: torch.Tensor = reference.norm() / gradient.norm().clamp(min=1e-12)
    return gradient * factor

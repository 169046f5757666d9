"""Losses of the contrastive method."""

from __future__ import annotations

import torch
from torch.nn import functional

from xmodal.training.losses import soft_cross_entropy


def caption_contrast(
    u: torch.Tensor,
    v: torch.Tensor,
    temperature: float,
    excluded: torch.Tensor,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over both directions of -log softmax_i(u_i v_j / K t), (b, K) both.

    InfoNCE (van den Oord et al., 2018) in both directions, as in CLIP (Radford et al., 2021), on
    relaxed codes. ``excluded`` (b, b) bool, symmetric: pairs that are not negatives.
    ``weight`` (b,) of the pairs, 1 if None.
    """
    logits = (u @ v.T / (u.shape[1] * temperature)).masked_fill(excluded, -1e9)
    own = torch.arange(len(u), device=u.device)
    if weight is None:
        both = functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
        return both / 2
    each = [functional.cross_entropy(x, own, reduction="none") for x in (logits, logits.T)]
    return (weight * (each[0] + each[1])).sum() / (2 * weight.sum())


def taught_contrast(
    u: torch.Tensor,
    v: torch.Tensor,
    temperature: float,
    taught: torch.Tensor,
    chosen: torch.Tensor,
    weight: torch.Tensor,
) -> torch.Tensor:
    """Contrast whose targets for ``chosen`` (b,) pairs are those of a teacher.

    ``taught`` (b, b): logits of the teacher, pictures by captions; their softmax is the target, in
    both directions. Other pairs have their own match as the target. ``weight`` (b,) of the pairs.
    """
    logits = u @ v.T / (u.shape[1] * temperature)
    own = torch.eye(len(u), device=u.device)
    loss = torch.zeros((), device=u.device)
    for scores, teacher in ((logits, taught), (logits.T, taught.T)):
        target = torch.where(chosen[:, None], torch.softmax(teacher, dim=1), own)
        loss = loss + soft_cross_entropy(scores, target, weight) / 2
    return loss

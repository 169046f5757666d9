"""Losses of SSAH: L_H, and the target hardness of an epoch."""

from __future__ import annotations

import torch

from xmodal.training.losses import pairwise_likelihood
from xmodal.training.methods.ssah.config import Config


def hash_loss(
    query: torch.Tensor,
    across: torch.Tensor,
    within: torch.Tensor,
    match_probability: torch.Tensor,
    config: Config,
) -> torch.Tensor:
    """L_H of each item, (m,): mean of the pairwise loss across and within modalities.

    ``query`` (m, K): codes of the first m items; ``match_probability`` (m, n) with all items;
    ``across`` and ``within`` (n, K): natural codes of the other and of the same modality. Within a
    modality an item is not compared with itself.
    """
    own = torch.eye(*match_probability.shape, device=match_probability.device)
    both = [
        pairwise_likelihood(
            config.slope * (query @ codes.T / codes.shape[1] - config.middle),
            similar,
            1 - match_probability,
        )
        for codes, similar in ((across, match_probability), (within, match_probability - own))
    ]
    return torch.stack(both).mean(0)


def target_hardness(epoch: int, config: Config) -> float:
    """rho of an epoch: grows linearly to ``config.hardness``, then constant."""
    grown = min(1.0, epoch / max(1.0, config.pace * config.epochs))
    return config.hardness * grown

"""Losses of multi-adversarial semantic hashing."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from xmodal.modality import Modality
from xmodal.training.critics import Critic
from xmodal.training.methods.multiadversarial.config import Config
from xmodal.training.methods.multiadversarial.networks import Reconstructions
from xmodal.training.objective import Terms


def l2_share(epoch: int, config: Config) -> float:
    """Share of the L2 error in the reconstruction loss: from 1 to 0 in ``warmup`` epochs."""
    if config.reconstruction == "l2":
        return 1.0
    return max(0.0, 1 - (epoch - 1) / config.warmup) if config.warmup else 0.0


def l2_error(made: Reconstructions, device: torch.device) -> torch.Tensor:
    """Mean over both modalities of the mean squared error of the components."""
    error = torch.zeros((), device=device)
    for modality, decoded in made.decoded.items():
        error = error + (decoded - made.target[modality]).square().mean() / 2
    return error


def reconstruction_losses(
    made: Reconstructions,
    error: torch.Tensor,
    critics: Mapping[Modality, Critic],
    config: Config,
    epoch: int,
) -> Terms:
    """The L2 ``error`` and the mean loss of the critics D_x, weighted by ``l2_share``."""
    terms: Terms = {}
    share = l2_share(epoch, config)
    if made.decoded and share > 0:
        terms["l2"] = config.reconstruction_weight * share * error
    if critics and share < 1:
        fooling = [
            critic.generator_loss(made.critic_inputs(modality)[1])
            for modality, critic in critics.items()
        ]
        weight = config.reconstruction_weight * (1 - share)
        terms["input critic"] = weight * torch.stack(fooling).mean()
    return terms

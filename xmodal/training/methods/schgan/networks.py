"""The generator of SCH-GAN: policies that select negatives and positives among a batch."""

from __future__ import annotations

import torch
from torch import nn

from xmodal.encoders.towers import Towers
from xmodal.training.negatives import NegativePolicy
from xmodal.training.objective import ForwardPass, ImageText
from xmodal.training.policy import Policy, log_policy


class PositivePolicy(nn.Module):
    """p(match | query) over the other items of a batch, with an adaptive temperature.

    The policy approximates relevance, as the generator of IRGAN does (Wang et al., SIGIR 2017).
    """

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.policy = Policy(towers.image.width, towers.text.width)
        self.register_buffer("temperature", torch.tensor(0.1))

    def log_policies(self, batch: ForwardPass) -> ImageText:
        """log p of image queries over texts and of text queries over images, each (n, n)."""
        image, text = (vectors.detach() for vectors in batch.vectors)
        distances = self.policy(image, text)
        others = ~torch.eye(len(distances), dtype=torch.bool, device=distances.device)
        temperature = float(self.get_buffer("temperature"))
        to_texts = log_policy(distances, others, temperature)
        return to_texts, log_policy(distances.T, others, temperature)

    @torch.no_grad()
    def mix_targets(
        self, batch: ForwardPass, target: torch.Tensor, uncertainty: torch.Tensor, max_share: float
    ) -> ImageText:
        """Mix the policy into contrastive targets (n, n), rows of sum 1, of both directions.

        The policy's share of row i is ``max_share`` times ``uncertainty`` i, (n,).
        """
        share = max_share * uncertainty[:, None]
        to_texts, to_images = (log_p.exp() for log_p in self.log_policies(batch))
        return (1 - share) * target + share * to_texts, (1 - share) * target + share * to_images


class Generator(nn.Module):
    """Both policies; the settings select the ones that are used."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.negatives = NegativePolicy(towers)
        self.positives = PositivePolicy(towers)

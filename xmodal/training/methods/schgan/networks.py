"""The generator of SCH-GAN: policies that select negatives and positives among a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from xmodal.encoders.towers import Towers
from xmodal.modality import Modality
from xmodal.training.objective import ForwardPass, ImageText
from xmodal.training.policy import Policy, adapt_temperature, log_policy

ByQuery = dict[Modality, torch.Tensor]
"""A tensor of each direction, by the modality of the queries."""


@dataclass(frozen=True)
class Candidates:
    """Matches and negative candidates of a batch of n pairs.

    ``match`` (n, n) bool: match probability above 1/2. ``weight`` (n, n): 1 - match probability of
    the other items, 0 for matches. Both are symmetric.
    """

    match: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of(cls, match_probability: torch.Tensor) -> Candidates:
        """Divide the items of a batch by their match probability (n, n)."""
        match = match_probability > 0.5
        return cls(match, (1 - match_probability) * ~match)


class NegativePolicy(nn.Module):
    """p(negative | query), with an adaptive temperature and an adaptive width of the reward."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.policy = Policy(towers.image.width, towers.text.width)
        self.register_buffer("temperature", torch.tensor(0.1))
        self.register_buffer("sigma", torch.tensor(0.1))

    def log_policies(self, batch: ForwardPass, candidates: Candidates) -> ByQuery:
        """log p(candidate | query) of both directions, each (n, n); -inf for other items."""
        image, text = (vectors.detach() for vectors in batch.vectors)
        distances = self.policy(image, text)
        allowed, temperature = candidates.weight > 0, float(self.get_buffer("temperature"))
        return {
            "image": log_policy(distances, allowed, temperature),
            "text": log_policy(distances.T, allowed.T, temperature),
        }

    def adapt(self, share: float, target: float, spread: float) -> None:
        """Adapt the temperature to the target share, and the reward's width to ``spread``."""
        adapt_temperature(self.get_buffer("temperature"), share, target)
        self.get_buffer("sigma").mul_(0.95).add_(0.05 * max(spread, 1e-3))


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

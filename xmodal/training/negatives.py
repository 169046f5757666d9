"""Negatives of a hinge on triplets: those that SCH-GAN's policy or a rule selects in a batch.

The policy is the generator of SCH-GAN (Zhang, Peng, Yuan, arXiv 1802.02488): a softmax over the
candidates of a query, rewarded for items near the margin of the hinge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from xmodal.config import check_at_least, check_at_most
from xmodal.encoders.towers import Towers
from xmodal.modality import MODALITIES, Modality
from xmodal.training import policy
from xmodal.training.losses import distance, expected_hinge
from xmodal.training.objective import ForwardPass
from xmodal.training.pairs import sample_match
from xmodal.training.policy import Policy, adapt_temperature, log_policy


@dataclass(frozen=True, kw_only=True)
class NegativesConfig:
    """Settings of the selection of negatives. The batch is also the pool of candidates."""

    negatives: Literal["policy", "semi-hard", "random"] = "semi-hard"
    """Selection of the negatives x-: the generator's policy, or a rule without a generator."""
    triplet: float = 3.0
    """Weight of the hinge on positives x+ and negatives x-."""
    margin: float = 0.2
    """beta, as a share of the bits."""
    reward_margin: float = 0.5
    """The generator's reward is largest for d- - d+ of this share of the margin. In the paper it is
    1, where the hinge is 0."""
    warmup: int = 2
    """Epochs in which negatives are random and the generator's positives are not used."""
    estimator: Literal["exact", "reinforce"] = "exact"
    """Gradient of the policy: the exact expectation over the pool, or sampled (REINFORCE)."""
    picks: int = 8
    """Samples a query for REINFORCE."""
    policy_share: float = 0.5
    """Share of the negatives that ``negatives`` selects; the rest is random."""
    policy_pool_share: float = 0.05
    """Target of the effective share of the pool that the policy selects from."""
    policy_rate: float = 1e-3
    """Learning rate of the generator."""
    policy_entropy: float = 0.01
    """Weight of the policy's entropy."""

    def __post_init__(self) -> None:
        check_at_least(self, 2, "picks")
        check_at_least(self, 0, "triplet", "reward_margin", "warmup", "policy_entropy")
        check_at_least(self, 1e-9, "policy_rate", "margin", "policy_pool_share")
        check_at_least(self, 0, "policy_share")
        check_at_most(self, 1, "policy_share", "policy_pool_share", "margin")


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


def directions(batch: ForwardPass) -> Iterator[tuple[Modality, torch.Tensor]]:
    """Yield the modality of the queries and their distances to all candidates, (n, n)."""
    distances = distance(*batch.codes)
    yield "image", distances
    yield "text", distances.T


def sample_positives(candidates: Candidates, rng: np.random.Generator) -> ByQuery:
    """Sample a match x+ of each query, (n,), in both directions."""
    return {modality: sample_match(candidates.match, rng) for modality in MODALITIES}


def positive_distances(distances: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """d+ of each query: (n, n), (n,) -> (n,)."""
    return distances.gather(1, positives[:, None]).squeeze(1)


@torch.no_grad()
def negative_weights(
    log_p: torch.Tensor | None,
    candidates: Candidates,
    distances: torch.Tensor,
    positive: torch.Tensor,
    config: NegativesConfig,
) -> torch.Tensor:
    """Distribution over negatives x- of each query, (n, n): rows sum to 1, or are 0.

    ``log_p`` (n, n): the policy, None for a rule. ``positive`` (n,): d+. The selection is
    multiplied by the candidates' weights.
    """
    if log_p is not None:
        selected = log_p.exp()
    elif config.negatives == "semi-hard":
        gap = distances - positive[:, None]
        selected = ((gap > 0) & (gap < config.margin)).float()
    else:
        selected = torch.ones_like(distances)
    return rows_to_one(selected * candidates.weight)


def triplet_loss(
    batch: ForwardPass,
    candidates: Candidates,
    policies: Mapping[Modality, torch.Tensor],
    config: NegativesConfig,
    warm: bool,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Mean over both directions of the expected hinge, SCH-GAN eq. 6 in expectation over x-.

    ``policies``: log p of the negative policy, empty for a rule. Before ``warm`` negatives are
    random.
    """
    total = torch.zeros((), device=batch.codes[0].device)
    positives = sample_positives(candidates, rng)
    for modality, distances in directions(batch):
        positive = positive_distances(distances, positives[modality])
        weight = rows_to_one(candidates.weight)
        if config.negatives != "random" and warm:
            log_p = policies.get(modality)
            selected = negative_weights(log_p, candidates, distances, positive, config)
            weight = (1 - config.policy_share) * weight + config.policy_share * selected
        total = total + expected_hinge(positive, distances, weight, config.margin) / 2
    return total


@torch.no_grad()
def log_policies(
    g: NegativePolicy, batch: ForwardPass, candidates: Candidates, config: NegativesConfig
) -> Mapping[Modality, torch.Tensor]:
    """log p of the negative policy, without gradients; empty where a rule selects negatives."""
    return g.log_policies(batch, candidates) if config.negatives == "policy" else {}


def negative_step(
    g: NegativePolicy,
    optimiser: torch.optim.Optimizer,
    batch: ForwardPass,
    candidates: Candidates,
    config: NegativesConfig,
    rng: np.random.Generator,
) -> dict[str, float]:
    """One step of the negative policy; its reward is largest near the discriminator's margin."""
    policies, positives = g.log_policies(batch, candidates), sample_positives(candidates, rng)
    sigma = float(g.get_buffer("sigma"))
    device = candidates.weight.device
    total, shares, rewards, spreads = torch.zeros((), device=device), [], [], []
    for modality, distances in directions(batch.detached()):
        positive = positive_distances(distances, positives[modality])
        log_p = policies[modality]
        reward = policy.margin_reward(
            positive, distances, config.margin * config.reward_margin, sigma
        )
        reward = reward * candidates.weight
        if config.estimator == "exact":
            total = total + policy.exact_objective(log_p, reward, config.policy_entropy)
        else:
            some = (candidates.weight > 0).any(1)
            picks = torch.multinomial(log_p[some].exp(), config.picks, replacement=True)
            total = total + policy.reinforce_objective(
                log_p[some], reward[some], picks, config.policy_entropy
            )
        shares.append(float(policy.effective_share(log_p.detach())))
        rewards.append(float((log_p.detach().exp() * reward).sum(1).mean()))
        spreads.append(float((positive[:, None] - distances).std(correction=0)))
    optimiser.zero_grad()
    total.backward()
    optimiser.step()
    g.adapt(float(np.mean(shares)), config.policy_pool_share, float(np.mean(spreads)) / 2)
    return {"reward": float(np.mean(rewards)), "policy share": float(np.mean(shares))}


def rows_to_one(weight: torch.Tensor) -> torch.Tensor:
    return weight / weight.sum(1, keepdim=True).clamp(min=1e-6)

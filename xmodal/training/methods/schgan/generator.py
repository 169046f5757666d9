"""Steps of the generator of SCH-GAN, and the selection of negatives that it gives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from xmodal.modality import Modality
from xmodal.training import policy
from xmodal.training.methods.schgan.config import Config, NegativesConfig
from xmodal.training.methods.schgan.losses import (
    correlation_score,
    directions,
    positive_distances,
    sample_positives,
)
from xmodal.training.methods.schgan.networks import Candidates, NegativePolicy, PositivePolicy
from xmodal.training.objective import ForwardPass


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


def positive_step(
    g: PositivePolicy, optimiser: torch.optim.Optimizer, batch: ForwardPass, config: Config
) -> dict[str, float]:
    """One step of the positive policy; its reward is the discriminator's correlation score."""
    score, policies = correlation_score(batch), g.log_policies(batch)
    objectives = [policy.exact_objective(p, score, config.policy_entropy) for p in policies]
    optimiser.zero_grad()
    torch.stack(objectives).sum().backward()
    optimiser.step()
    share = torch.stack([policy.effective_share(p.detach()) for p in policies]).mean()
    temperature = g.get_buffer("temperature")
    policy.adapt_temperature(temperature, float(share), config.positive_pool_share)
    rewards = [(p.detach().exp() * score).sum(1).mean() for p in policies]
    return {"positive reward": float(torch.stack(rewards).mean())}


@torch.no_grad()
def log_policies(
    g: NegativePolicy, batch: ForwardPass, candidates: Candidates, config: NegativesConfig
) -> Mapping[Modality, torch.Tensor]:
    """log p of the negative policy, without gradients; empty where a rule selects negatives."""
    return g.log_policies(batch, candidates) if config.negatives == "policy" else {}

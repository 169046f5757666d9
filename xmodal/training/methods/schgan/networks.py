"""The generator of the practical mode: a policy over the batch, and the rules it is compared with.

What an adversary is given is a :class:`Scene`; what it returns is how x- is spread over the
candidates of each query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from xmodal.towers import Towers
from xmodal.training import losses
from xmodal.training import pairs as sampling
from xmodal.training import policy as reinforce
from xmodal.training.methods.schgan.config import Config

HARDEST = 8
"""Candidates that the rule "hardest" spreads over."""


@dataclass(frozen=True)
class Scene:
    """What both players look at: codes and vectors of one batch, and who is a match of whom.

    ``agreement`` (n, n) in [0, 1]: how surely two items share a class; more than half is a
    ``match``. ``weight`` (n, n): how surely a candidate is none, 0 of matches.
    """

    image: torch.Tensor
    text: torch.Tensor
    image_vectors: torch.Tensor
    text_vectors: torch.Tensor
    agreement: torch.Tensor
    match: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of(
        cls,
        codes: tuple[torch.Tensor, torch.Tensor],
        vectors: tuple[torch.Tensor, torch.Tensor],
        agreement: torch.Tensor,
    ) -> Scene:
        """The scene of codes (image, text) and the vectors that they come from."""
        match = agreement > 0.5
        weight = (1 - agreement) * ~match
        return cls(*codes, vectors[0].detach(), vectors[1].detach(), agreement, match, weight)

    def ways(self, detached: bool = False) -> tuple[tuple[str, torch.Tensor], ...]:
        """Who asks, and its distances to the candidates, (n, n)."""
        between = losses.distance(self.image, self.text)
        between = between.detach() if detached else between
        return (("image", between), ("text", between.T))


class Generator(nn.Module):
    """The policy, with a temperature and a reward width that follow the run."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.policy = reinforce.Policy(towers.image.width, towers.text.width)
        self.register_buffer("temperature", torch.tensor(0.1))
        self.register_buffer("sigma", torch.tensor(0.1))

    def log_policies(self, scene: Scene) -> dict[str, torch.Tensor]:
        """log p(candidate | query) of both directions, each (n, n), by the modality that asks."""
        between = self.policy(scene.image_vectors, scene.text_vectors)
        allowed, temperature = scene.weight > 0, float(self.get_buffer("temperature"))
        return {
            "image": reinforce.log_policy(between, allowed, temperature),
            "text": reinforce.log_policy(between.T, allowed.T, temperature),
        }

    def follow(self, used: float, wanted: float, spread: float) -> None:
        """Move the temperature towards the wanted share of the pool, the width to the spread."""
        reinforce.follow(self.get_buffer("temperature"), used, wanted)
        self.get_buffer("sigma").mul_(0.95).add_(0.05 * max(spread, 1e-3))


def draw_positives(scene: Scene, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """A random match x+ of each query, (n,), by the modality that asks."""
    return {way: sampling.one_match(scene.match, rng) for way in ("image", "text")}


@torch.no_grad()
def choose(
    log_policy: torch.Tensor | None,
    scene: Scene,
    distances: torch.Tensor,
    positive: torch.Tensor,
    config: Config,
) -> torch.Tensor:
    """How the adversary spreads over the pool, (n, n); rows sum to 1, or are 0.

    ``log_policy`` is the generator's choice, None where a rule chooses. ``positive`` (n,): d+.
    """
    gap = distances - positive[:, None]
    if log_policy is not None:
        choice = log_policy.exp()
    elif config.negatives == "semi-hard":
        choice = ((gap > 0) & (gap < config.margin)).float()
    elif config.negatives == "hardest":
        doubtful = 2 * (scene.weight <= 0)
        worst = (distances + doubtful).topk(min(HARDEST, len(gap)), largest=False).indices
        choice = torch.zeros_like(distances).scatter_(1, worst, 1.0)
    else:
        choice = torch.ones_like(distances)
    choice = choice * scene.weight
    return choice / choice.sum(1, keepdim=True).clamp(min=1e-6)


def step(
    g: Generator,
    optimiser: torch.optim.Optimizer,
    scene: Scene,
    config: Config,
    epoch: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """One step of the policy towards candidates on the margin, as the discriminator sees them."""
    aim = config.margin * (config.aim + config.pace * (1 - epoch / config.epochs))
    policies, chosen = g.log_policies(scene), draw_positives(scene, rng)
    sigma = float(g.get_buffer("sigma"))
    total, used, rewards, spreads = torch.zeros((), device=scene.image.device), [], [], []
    for way, distances in scene.ways(detached=True):
        positive = distances.gather(1, chosen[way][:, None]).squeeze(1)
        log_p = policies[way]
        reward = reinforce.margin_reward(positive, distances, aim, sigma)
        reward = reward * scene.weight
        if config.estimator == "exact":
            total = total + reinforce.exact_objective(log_p, reward, config.policy_entropy)
        else:
            some = (scene.weight > 0).any(1)
            picks = torch.multinomial(log_p[some].exp(), config.picks, replacement=True)
            total = total + reinforce.reinforce_objective(
                log_p[some], reward[some], picks, config.policy_entropy
            )
        used.append(float(reinforce.effective_share(log_p.detach())))
        rewards.append(float((log_p.detach().exp() * reward).sum(1).mean()))
        spreads.append(float((positive[:, None] - distances).std(correction=0)))
    optimiser.zero_grad()
    total.backward()
    optimiser.step()
    g.follow(float(np.mean(used)), config.policy_uses, float(np.mean(spreads)) / 2)
    return {"reward": float(np.mean(rewards)), "policy uses": float(np.mean(used))}


@torch.no_grad()
def watch(
    g: Generator, scene: Scene, truth: torch.Tensor, config: Config, rng: np.random.Generator
) -> Mapping[str, float]:
    """What the adversary picks among pairs whose labels it was never told.

    ``truth`` (n, n) bool: who shares a label. Mean distance of the picks to the margin as a share
    of the bits, the share of picks that are matches in truth, and the same of random candidates;
    nothing where there is no candidate.
    """
    policies = g.log_policies(scene) if config.negatives == "policy" else {}
    chosen = draw_positives(scene, rng)
    gaps, false, random = [], [], []
    for way, distances in scene.ways():
        positive = distances.gather(1, chosen[way][:, None]).squeeze(1)
        choice = choose(policies.get(way), scene, distances, positive, config)
        anyone = scene.weight / scene.weight.sum(1, keepdim=True).clamp(min=1e-6)
        off = (config.margin + positive[:, None] - distances).abs()
        some = choice.sum(1) > 0
        if not bool(some.any()):
            return {}
        gaps.append(float((choice * off).sum(1)[some].mean()))
        false.append(float((choice * truth).sum(1)[some].mean()))
        random.append(float((anyone * truth).sum(1)[some].mean()))
    named = {"picks off margin": gaps, "picks that match": false}
    named["others that match"] = random
    return {name: float(np.mean(values)) for name, values in named.items()}

"""The practical mode of SCH-GAN: the default.

Departures from the paper, all of them ours:

- Features of frozen backbones of length 1; towers with LayerNorm, GELU and tanh; AdamW; large
  batches. The pool of candidates is the batch: every code in it is fresh, and gradients reach both
  the query and the candidate. Distances are shares of the bits, so the margin does not depend on K.
- The policy's expectation is computed exactly over the pool (``estimator="exact"``); sampling with
  REINFORCE and a leave-one-out baseline is ``estimator="reinforce"``. Its temperature follows the
  share of the pool that it should use, the reward's width follows the spread of the margins.
- Unlabelled items are not thrown away: all natural pairs are contrasted (InfoNCE), the classes'
  codewords (learned) give them pseudo-labels, which also say how likely a candidate is a false
  negative, and the neighbourhood that frozen features know is kept in code space.
- Quantisation, balance and decorrelation of bits; one checkpoint for both directions, chosen on
  validation pairs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from xmodal import losses, reinforce, sampling
from xmodal.backbones.device import device
from xmodal.methods.schgan.paper_settings import Config as PaperConfig
from xmodal.run import Run, Stateful, TrainingData
from xmodal.sampling import Pairs
from xmodal.settings import check_at_least, check_at_most
from xmodal.towers import Towers


@dataclass(frozen=True)
class Config:
    """Settings; the defaults stand here and nowhere else."""

    epochs: int = 40
    batch: int = 512
    hidden: int = 1024
    feature_dropout: float = 0.3
    """Share of the features that a training step hides from the towers."""
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    negatives: Literal["policy", "semi-hard", "hardest", "random"] = "policy"
    """Who chooses x-: the generator, or (no adversary) a rule."""
    margin: float = 0.2
    """beta, as a share of the bits."""
    triplet: float = 1.0
    pairs: float = 1.0
    """Weight of the contrast of natural pairs and other matches."""
    match_share: float = 0.3
    """How much of that contrast goes to all matches alike, the rest to the natural pair."""
    classes: float = 2.0
    """Weight of the cross-entropy to the classes' codewords."""
    neighbours: float = 0.1
    quantise: float = 0.1
    balance: float = 0.1
    decorrelate: float = 0.1
    temperature: float = 0.1
    """Of all softmaxes over code similarities, which lie in [-1, 1]."""
    neighbour_temperature: float = 0.1
    pseudo_threshold: float = 0.7
    """Mean posterior of both sides from which an unlabelled item gets a pseudo-label."""
    warmup: int = 3
    """Epochs before pseudo-labels and the generator's picks are used."""
    estimator: Literal["exact", "reinforce"] = "exact"
    picks: int = 8
    """Samples a query for REINFORCE."""
    policy_share: float = 0.5
    """Part of the negatives that the generator chooses; the rest is drawn at random."""
    policy_uses: float = 0.05
    """Share of the pool that the policy spreads over."""
    policy_rate: float = 1e-3
    policy_entropy: float = 0.01

    def __post_init__(self) -> None:
        check_at_least(self, 1, "epochs", "hidden")
        check_at_least(self, 2, "batch", "picks")
        check_at_least(self, 0, "weight_decay", "triplet", "pairs", "classes", "neighbours")
        check_at_least(self, 0, "quantise", "balance", "decorrelate", "policy_entropy", "warmup")
        rates = ("learning_rate", "policy_rate", "temperature", "neighbour_temperature")
        check_at_least(self, 1e-9, *rates, "policy_uses", "margin")
        shares = ("feature_dropout", "match_share", "policy_share", "policy_uses")
        check_at_least(self, 0, *shares)
        check_at_most(self, 1, *shares, "margin", "pseudo_threshold")

    @staticmethod
    def paper(**switches: Any) -> PaperConfig:
        """Settings of the faithful mode."""
        return PaperConfig(**switches)


class Discriminator(nn.Module):
    """The hash network, and a codeword for each class."""

    def __init__(self, towers: Towers, classes: int, labels_per_item: int) -> None:
        super().__init__()
        self.towers = towers
        self.codewords = nn.Parameter(torch.randn(classes, towers.bits))
        self.labels_per_item = labels_per_item

    def class_logits(self, codes: torch.Tensor, temperature: float) -> torch.Tensor:
        """(1 - 2 d) / temperature between codes and codewords, (n, c)."""
        words = torch.tanh(self.codewords)
        return (codes @ words.T) / (codes.shape[1] * temperature)


class Generator(nn.Module):
    """The policy, with a temperature and a reward width that follow the run."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.policy = reinforce.Policy(towers.image.width, towers.text.width)
        self.register_buffer("temperature", torch.tensor(0.1))
        self.register_buffer("sigma", torch.tensor(0.1))

    def follow(self, used: float, wanted: float, spread: float) -> None:
        """Move the temperature towards the wanted share of the pool, the width to the spread."""
        step = 0.1 * (np.log(wanted) - np.log(max(used, 1e-6)))
        temperature, sigma = self.get_buffer("temperature"), self.get_buffer("sigma")
        temperature.mul_(float(np.exp(np.clip(step, -0.2, 0.2)))).clamp_(1e-4, 10)
        sigma.mul_(0.95).add_(0.05 * max(spread, 1e-3))


@dataclass
class _Batch:
    """What both players look at: codes, vectors and the pool of one batch."""

    image: torch.Tensor
    text: torch.Tensor
    image_vectors: torch.Tensor
    text_vectors: torch.Tensor
    match: torch.Tensor
    weight: torch.Tensor


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train towers; the alternation of both players is this page."""
    with torch.random.fork_rng():
        run.rng(0)
        pairs = data.train.to(device())
        towers = data.towers(config.hidden, config.feature_dropout)
        count = sampling.labels_per_item(pairs.labels, pairs.labelled)
        d = Discriminator(towers, data.classes, count).to(device())
        g = Generator(towers).to(device())
        d_steps = torch.optim.AdamW(
            d.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        g_steps = torch.optim.AdamW(g.parameters(), lr=config.policy_rate)
        state: dict[str, Stateful] = {"d": d, "g": g, "d_steps": d_steps, "g_steps": g_steps}
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            for group in d_steps.param_groups:
                group["lr"] = config.learning_rate * _schedule(epoch, config)
            posterior = _posterior(d, pairs, config) if epoch > config.warmup else None
            sums: dict[str, list[float]] = defaultdict(list)
            for rows in sampling.batches(len(pairs), config.batch, rng):
                part = pairs.take(rows)
                belief = posterior[rows] if posterior is not None else None
                terms, seen = _discriminator_step(d, g, d_steps, part, belief, config, epoch, rng)
                if config.negatives == "policy":
                    terms |= _generator_step(g, g_steps, seen, config, rng)
                for name, value in terms.items():
                    sums[name].append(value)
            run.end_of_epoch(epoch, towers, {k: float(np.mean(v)) for k, v in sums.items()})
        return run.finish(towers)


def _discriminator_step(
    d: Discriminator,
    g: Generator,
    steps: torch.optim.Optimizer,
    part: Pairs,
    posterior: torch.Tensor | None,
    config: Config,
    epoch: int,
    rng: np.random.Generator,
) -> tuple[dict[str, float], _Batch]:
    """One step of the hash network against random items and the generator's picks."""
    d.train()
    image_vectors = d.towers.image.vectors(part.image)
    text_vectors = d.towers.text.vectors(part.text)
    u = torch.tanh(d.towers.image.head(image_vectors))
    v = torch.tanh(d.towers.text.head(text_vectors))
    labels, known = part.labels, part.labelled
    if posterior is not None:
        labels, known = sampling.with_pseudo_labels(
            labels, known, posterior, config.pseudo_threshold, d.labels_per_item
        )
    match = sampling.matches(labels, known)
    weight = sampling.candidate_weights(labels, known, posterior)
    seen = _Batch(u, v, image_vectors.detach(), text_vectors.detach(), match, weight)

    terms: dict[str, torch.Tensor] = {}
    if config.pairs:
        own = torch.eye(len(u), device=u.device)
        alike = sampling.likeness(labels, known)
        alike = alike / alike.sum(1, keepdim=True)
        target = (1 - config.match_share) * own + config.match_share * alike
        terms["pairs"] = config.pairs * losses.contrast(
            u, v, target, config.temperature, weight < 0.5
        )
    if config.classes and labels.shape[1] and bool(known.any()):
        target = labels / labels.sum(1, keepdim=True).clamp(min=1)
        logits = [d.class_logits(codes, config.temperature) for codes in (u, v)]
        terms["classes"] = (
            config.classes
            * torch.stack(
                [losses.soft_cross_entropy(one, target, known.float()) for one in logits]
            ).mean()
        )
    if config.triplet:
        terms["triplet"] = config.triplet * _triplets(g, seen, config, epoch, rng)
    if config.neighbours:
        share = 0.0 if part.image.dtype == torch.uint8 else 0.5
        target = sampling.neighbour_target(
            part.image if share else part.text, part.text, config.neighbour_temperature, share
        )
        terms["neighbours"] = config.neighbours * losses.neighbour_consistency(
            u, v, target, config.temperature
        )
    for codes in (u, v):
        bits = config.quantise * losses.quantisation(codes) + config.balance * losses.balance(codes)
        bits = bits + config.decorrelate * losses.decorrelation(codes)
        terms["bits"] = terms.get("bits", torch.zeros(())) + bits
    total = torch.stack(list(terms.values())).sum()
    steps.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(d.parameters(), 5.0)
    steps.step()
    return {name: float(value.detach()) for name, value in terms.items()}, seen


def _triplets(
    g: Generator, seen: _Batch, config: Config, epoch: int, rng: np.random.Generator
) -> torch.Tensor:
    """The hinge over both directions: x+ at random, x- as ``config.negatives`` says."""
    total = torch.zeros(())
    between = losses.distance(seen.image, seen.text)
    with torch.no_grad():
        policies = _log_policies(g, seen) if config.negatives == "policy" else {}
    for way, distances in (("image", between), ("text", between.T)):
        chosen = sampling.one_match(seen.match, rng)
        positive = distances.gather(1, chosen[:, None]).squeeze(1)
        weight = seen.weight / seen.weight.sum(1, keepdim=True).clamp(min=1e-6)
        if config.negatives != "random" and epoch > config.warmup:
            choice = _choice(policies.get(way), seen, distances, positive, config)
            weight = (1 - config.policy_share) * weight + config.policy_share * choice
        total = total + losses.expected_hinge(positive, distances, weight, config.margin) / 2
    return total


@torch.no_grad()
def _choice(
    log_policy: torch.Tensor | None,
    seen: _Batch,
    distances: torch.Tensor,
    positive: torch.Tensor,
    config: Config,
) -> torch.Tensor:
    """How the adversary spreads over the pool, (n, n); rows sum to 1, or are 0.

    ``log_policy`` is the generator's choice, None where a rule chooses.
    """
    gap = distances - positive[:, None]
    if log_policy is not None:
        choice = log_policy.exp()
    elif config.negatives == "semi-hard":
        choice = ((gap > 0) & (gap < config.margin)).float()
    else:
        worst = (distances + 2 * (seen.weight <= 0)).topk(min(8, len(gap)), largest=False).indices
        choice = torch.zeros_like(distances).scatter_(1, worst, 1.0)
    choice = choice * seen.weight
    return choice / choice.sum(1, keepdim=True).clamp(min=1e-6)


def _log_policies(g: Generator, seen: _Batch) -> dict[str, torch.Tensor]:
    """log p(candidate | query) of both directions, each (n, n), by the modality that asks."""
    between = g.policy(seen.image_vectors, seen.text_vectors)
    allowed, temperature = seen.weight > 0, float(g.get_buffer("temperature"))
    return {
        "image": reinforce.log_policy(between, allowed, temperature),
        "text": reinforce.log_policy(between.T, allowed, temperature),
    }


def _generator_step(
    g: Generator,
    steps: torch.optim.Optimizer,
    seen: _Batch,
    config: Config,
    rng: np.random.Generator,
) -> dict[str, float]:
    """One step of the policy towards candidates on the margin, as the discriminator sees them."""
    between = losses.distance(seen.image.detach(), seen.text.detach())
    log_policies = _log_policies(g, seen)
    total, used, rewards = torch.zeros(()), [], []
    for way, distances in (("image", between), ("text", between.T)):
        chosen = sampling.one_match(seen.match, rng)
        positive = distances.gather(1, chosen[:, None]).squeeze(1)
        sigma = float(g.get_buffer("sigma"))
        reward = reinforce.margin_reward(positive, distances, config.margin, sigma) * seen.weight
        log_p = log_policies[way]
        if config.estimator == "exact":
            total = total + reinforce.exact_objective(log_p, reward, config.policy_entropy)
        else:
            some = (seen.weight > 0).any(1)
            picks = torch.multinomial(log_p[some].exp(), config.picks, replacement=True)
            total = total + reinforce.reinforce_objective(
                log_p[some], reward[some], picks, config.policy_entropy
            )
        used.append(float(reinforce.effective_share(log_p.detach())))
        rewards.append(float((log_p.detach().exp() * reward).sum(1).mean()))
        spread = float((config.margin + positive[:, None] - distances).std())
    steps.zero_grad()
    total.backward()
    steps.step()
    g.follow(float(np.mean(used)), config.policy_uses, spread / 2)
    return {"reward": float(np.mean(rewards)), "policy_uses": float(np.mean(used))}


@torch.no_grad()
def _posterior(d: Discriminator, pairs: Pairs, config: Config) -> torch.Tensor | None:
    """What the codewords say of every training pair, mean of both sides, (n, c)."""
    if pairs.labels.shape[1] == 0 or not config.classes or bool(pairs.labelled.all()):
        return None
    d.eval()
    total = torch.zeros(())
    for tower, features in ((d.towers.image, pairs.image), (d.towers.text, pairs.text)):
        codes = torch.cat([tower(part) for part in features.split(1024)])
        total = total + torch.softmax(d.class_logits(codes, config.temperature), dim=1) / 2
    return total


def _schedule(epoch: int, config: Config) -> float:
    """Learning rate over the epochs: two to warm up, then a cosine to a tenth."""
    if epoch <= 2:
        return epoch / 3
    part = (epoch - 2) / max(1, config.epochs - 2)
    return float(0.1 + 0.45 * (1 + np.cos(np.pi * min(1.0, part))))

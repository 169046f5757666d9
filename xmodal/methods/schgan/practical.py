"""The practical mode of SCH-GAN: the default.

Departures from the paper, all of them ours:

- Features of frozen backbones of length 1; towers with LayerNorm, GELU and tanh; AdamW; large
  batches. The pool of candidates is the batch: every code in it is fresh, and gradients reach both
  the query and the candidate. Distances are shares of the bits, so the margin does not depend on K.
- Unlabelled items are not thrown away. What both sides of a pair suggest together (``beliefs``)
  teaches the towers, which see one side each: classes as soft pseudo-labels, and for pairs whose
  class is in doubt their neighbours in the shared space. All natural pairs are contrasted.
- Each class has a learned codeword; the softmax over codewords has a temperature that follows the
  number of classes.
- The policy's expectation is computed exactly over the pool (``estimator="exact"``); sampling with
  REINFORCE and a leave-one-out baseline is ``estimator="reinforce"``. Its temperature follows the
  share of the pool that it should use, the reward's width follows the spread of the margins.
  Candidates count by how surely they are no match.
- The generator has two more jobs that can be switched on: choosing positives, and which
  pseudo-labels to trust (``positives``, ``trust``).
- Quantisation, balance and decorrelation of bits, and a critic of codes that can be switched on
  (``code_critic``); one checkpoint for both directions, chosen on validation pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from xmodal import losses, sampling
from xmodal.backbones.device import device
from xmodal.beliefs import Beliefs, learn
from xmodal.codewords import Codewords, class_temperature
from xmodal.critics import CodeCritic
from xmodal.methods.schgan import generator, positives, trust
from xmodal.methods.schgan.generator import Generator, Scene
from xmodal.methods.schgan.positives import Relevance
from xmodal.methods.schgan.settings import Config
from xmodal.methods.schgan.trust import Trust
from xmodal.run import Run, Stateful, TrainingData, schedule
from xmodal.sampling import Pairs
from xmodal.towers import Towers

STEPS = 8
"""The least number of steps an epoch."""
WATCHED = 1000
"""Labelled validation pairs among which the adversary's picks are looked at."""


class Discriminator(nn.Module):
    """The hash network, and a codeword for each class."""

    def __init__(self, towers: Towers, classes: int, temperature: float) -> None:
        super().__init__()
        self.towers = towers
        self.codewords = Codewords(classes, towers.bits, temperature)


class Adversary(nn.Module):
    """The generator's three jobs, of which the settings switch on those that are used."""

    def __init__(self, towers: Towers, classes: int) -> None:
        super().__init__()
        self.negatives = Generator(towers)
        self.positives = Relevance(towers)
        self.trust = Trust(classes)


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train towers; the alternation of both players is this page."""
    with torch.random.fork_rng():
        run.rng(0)
        believe = learn(
            data.train,
            directions=config.directions,
            tell_unlabelled=config.pseudo_labels,
            raw_images=data.raw_images,
        )
        pairs = data.train.to(device())
        beliefs = believe(pairs)
        towers = data.towers(config.hidden, config.feature_dropout)
        told = int((pairs.labels[pairs.labelled].sum(0) > 0).sum())
        temperature = class_temperature(told, config.certainty)
        d = Discriminator(towers, data.classes, temperature).to(device())
        g = Adversary(towers, data.classes).to(device())
        d_steps = torch.optim.AdamW(
            d.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        g_steps = torch.optim.AdamW(g.parameters(), lr=config.policy_rate)
        state: dict[str, Stateful] = {"d": d, "g": g, "d_steps": d_steps, "g_steps": g_steps}
        critic = None
        if config.code_critic:
            critic = CodeCritic(data.bits).to(device())
            state |= {"critic": critic.layers, "critic_steps": critic.updates}
        labelled = data.validation.labelled.nonzero().flatten()
        watched = data.validation.take(labelled[sampling.even_choice(len(labelled), WATCHED)])
        watched = watched.to(device())
        unseen = believe(replace(watched, labelled=torch.zeros_like(watched.labelled)))
        batch = max(2, min(config.batch, len(pairs) // STEPS))
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            for group in d_steps.param_groups:
                group["lr"] = config.learning_rate * schedule(epoch, config.epochs)
            sums: dict[str, list[float]] = defaultdict(list)
            for rows in sampling.batches(len(pairs), batch, rng):
                part, belief = pairs.take(rows), beliefs.take(rows)
                terms, scene = _discriminator_step(
                    d, g, d_steps, part, belief, config, epoch, rng, critic
                )
                if config.negatives == "policy" and config.triplet:
                    terms |= generator.step(g.negatives, g_steps, scene, config, epoch, rng)
                if config.positives == "policy":
                    terms |= positives.step(g.positives, g_steps, scene, config)
                if config.trust == "policy":
                    opinions = d.codewords(scene.image), d.codewords(scene.text)
                    terms |= trust.step(
                        g.trust, g_steps, scene, belief.classes, opinions, part.labelled, config
                    )
                for name, value in terms.items():
                    sums[name].append(value)
            means = {name: float(np.mean(values)) for name, values in sums.items()}
            if config.triplet and len(watched):
                means |= _watch(d, g, watched, unseen, config, epoch)
            run.end_of_epoch(epoch, towers, means)
        return run.finish(towers)


def _discriminator_step(
    d: Discriminator,
    g: Adversary,
    steps: torch.optim.Optimizer,
    part: Pairs,
    belief: Beliefs,
    config: Config,
    epoch: int,
    rng: np.random.Generator,
    critic: CodeCritic | None = None,
) -> tuple[dict[str, float], Scene]:
    """One step of the hash network against random items and the adversary's picks."""
    d.train()
    scene = _scene(d, part, belief)
    u, v, doubt = scene.image, scene.text, belief.doubt
    begun = epoch > config.warmup
    terms: dict[str, torch.Tensor] = {}
    if config.classes and bool((belief.classes > 0).any()):
        opinions = d.codewords(u), d.codewords(v)
        told = belief.classes.sum(1)
        if config.trust == "policy" and begun:
            told = told * g.trust.weights(belief.classes, opinions, part.labelled)
        entropy = [losses.soft_cross_entropy(one, belief.classes, told) for one in opinions]
        terms["classes"] = config.classes * torch.stack(entropy).mean()
    if config.pairs:
        own = torch.eye(len(u), device=u.device)
        alike = scene.agreement / scene.agreement.sum(1, keepdim=True)
        target = (1 - config.match_share) * own + config.match_share * alike
        targets = target, target
        if config.positives == "policy" and begun:
            targets = g.positives.share_of(scene, target, doubt, config.positive_share)
        terms["pairs"] = config.pairs * losses.contrast(u, v, targets, config.temperature)
    if config.neighbours and bool((doubt > 0).any()):
        near = torch.softmax(belief.place @ belief.place.T / config.neighbour_temperature, dim=1)
        consistency = losses.contrast(u, v, (near, near), config.temperature, doubt)
        terms["neighbours"] = config.neighbours * doubt.mean() * consistency
    if config.triplet:
        terms["triplet"] = config.triplet * _triplets(g.negatives, scene, config, begun, rng)
    for codes in (u, v):
        bits = config.quantise * losses.quantisation(codes) + config.balance * losses.balance(codes)
        bits = bits + config.decorrelate * losses.decorrelation(codes)
        terms["bits"] = terms.get("bits", torch.zeros((), device=u.device)) + bits
    if critic is not None:
        critic.learn(torch.cat([u, v]))
        terms["code critic"] = config.code_critic * critic.term(torch.cat([u, v]))
    total = torch.stack(list(terms.values())).sum()
    steps.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(d.parameters(), 5.0)
    steps.step()
    return {name: float(value.detach()) for name, value in terms.items()}, scene


def _scene(d: Discriminator, part: Pairs, belief: Beliefs) -> Scene:
    """Codes and vectors of some pairs, and what is believed of who matches whom."""
    towers = d.towers
    vectors = towers.image.vectors(part.image), towers.text.vectors(part.text)
    codes = torch.tanh(towers.image.head(vectors[0])), torch.tanh(towers.text.head(vectors[1]))
    return Scene.of(codes, vectors, belief.agreement())


def _triplets(
    g: Generator, scene: Scene, config: Config, begun: bool, rng: np.random.Generator
) -> torch.Tensor:
    """The hinge over both directions: x+ at random, x- as ``config.negatives`` says."""
    total = torch.zeros((), device=scene.image.device)
    with torch.no_grad():
        policies = g.log_policies(scene) if config.negatives == "policy" else {}
    chosen = generator.draw_positives(scene, rng)
    for way, distances in scene.ways():
        positive = distances.gather(1, chosen[way][:, None]).squeeze(1)
        weight = scene.weight / scene.weight.sum(1, keepdim=True).clamp(min=1e-6)
        if config.negatives != "random" and begun:
            choice = generator.choose(policies.get(way), scene, distances, positive, config)
            weight = (1 - config.policy_share) * weight + config.policy_share * choice
        total = total + losses.expected_hinge(positive, distances, weight, config.margin) / 2
    return total


@torch.no_grad()
def _watch(
    d: Discriminator, g: Adversary, pairs: Pairs, unseen: Beliefs, config: Config, epoch: int
) -> Mapping[str, float]:
    """What the adversary would pick among validation pairs, whose labels nobody learned from."""
    d.eval()
    truth = sampling.matches(pairs.labels, pairs.labelled)
    scene = _scene(d, pairs, unseen)
    return generator.watch(g.negatives, scene, truth, config, np.random.default_rng(epoch))

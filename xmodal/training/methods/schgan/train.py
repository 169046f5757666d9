"""SCH-GAN: Zhang, Peng, Yuan, "SCH-GAN: Semi-supervised cross-modal hashing by generative
adversarial network", arXiv 1802.02488; IEEE Transactions on Cybernetics 50(2), 2020.

The idea. Nothing is synthesised: given a query of one modality, the generator *selects* items of
the other from a pool that contains unlabelled data; it is a softmax policy over candidates. The
discriminator is the hash network: it learns to rank true matches above the selected items by a
margin. The generator is rewarded for items close to the margin. Both directions alternate, with
the same parameters; the codes of the discriminator are used for retrieval.

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

What the adversary is worth, by benchmarks/results/schgan-ablation.md: expected mAP at 32 bits, mean
of both directions, 5 seeds, differences paired by seed; fashion at 5, 10, 25 % labels, and
Wikipedia (RoPH, TF-IDF) at the same:

- Unlabelled items matter most. Without pseudo-labels Wikipedia falls from .348 .370 .401 to .291
  .308 .348.
- Hard negatives matter little on this base. The semi-hard rule against no triplets at all: fashion
  .861 .877 .889 against .859 .877 .889, Wikipedia .348 .370 .401 against .340 .362 .394.
- A generator that picks negatives finds no better ones than the rule: -.0014 +.0006 +.0006 and
  -.0018 -.0060 -.0050, at 1.3 to 1.6 times the processor's time. Sampled (REINFORCE) or paced it
  does as well. Its picks stay .1 of the bits from the margin, the rule's .07; of both 10 to 20 %
  are matches in truth, which their weights make up for.
- A generator that picks *positives* finds what a rule about negatives cannot: +.0013 +.0002 +.0008
  and +.0035 +.0017 +.0014 above the rule. Only the first exceeds twice the standard deviation
  between paired seeds, and fashion's steps take 1.4 to 1.9 times as long: it is off by default.
- Choosing whom to trust gains nothing: -.0005 -.0007 +.0004 and +.0009 +.0002 -.0014.
- The hinge alone, with random or semi-hard negatives and believed classes, beats the default on
  Wikipedia: .367 .383 .407. It knows the class and not the pair, though: at 5 % labels 8 % of
  images find their own text among the first 10, 12 % by default. There a generator costs .01.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from xmodal.device import device
from xmodal.towers import Towers
from xmodal.training import losses
from xmodal.training import objective as groundwork
from xmodal.training import pairs as sampling
from xmodal.training.critics import CodeCritic
from xmodal.training.methods.schgan import networks as generator
from xmodal.training.methods.schgan import positives, trust
from xmodal.training.methods.schgan.config import Config
from xmodal.training.methods.schgan.networks import Generator, Scene
from xmodal.training.methods.schgan.positives import Relevance
from xmodal.training.methods.schgan.trust import Trust
from xmodal.training.objective import HashNetwork, Terms
from xmodal.training.pairs import Pairs
from xmodal.training.pseudo_labels import Beliefs
from xmodal.training.run import Run, Stateful, TrainingData

WATCHED = 1000
"""Labelled validation pairs among which the adversary's picks are looked at."""


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
        believe = groundwork.believer(data, config)
        pairs = data.train.to(device())
        beliefs = believe(pairs)
        towers = data.towers(config.hidden, config.feature_dropout)
        d = HashNetwork(towers, groundwork.codewords(data, config)).to(device())
        g = Adversary(towers, data.classes).to(device())
        d_steps = groundwork.optimiser(d, config)
        g_steps = torch.optim.AdamW(g.parameters(), lr=config.policy_rate)
        state: dict[str, Stateful] = {"d": d, "g": g, "d_steps": d_steps, "g_steps": g_steps}
        critic = None
        if config.code_critic:
            critic = CodeCritic(data.bits).to(device())
            state |= critic.state("critic")
        labelled = data.validation.labelled.nonzero().flatten()
        watched = data.validation.take(labelled[sampling.even_choice(len(labelled), WATCHED)])
        watched = watched.to(device())
        unseen = believe(replace(watched, labelled=torch.zeros_like(watched.labelled)))
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            groundwork.set_rate(d_steps, config, epoch)
            for rows in groundwork.batches(len(pairs), config, rng):
                part, belief = pairs.take(rows), beliefs.take(rows)
                figures, scene = _discriminator_step(
                    d, g, d_steps, part, belief, config, epoch, rng, critic
                )
                if config.negatives == "policy" and config.triplet:
                    figures |= generator.step(g.negatives, g_steps, scene, config, epoch, rng)
                if config.positives == "policy":
                    figures |= positives.step(g.positives, g_steps, scene, config)
                if config.trust == "policy":
                    opinions = d.codewords(scene.image), d.codewords(scene.text)
                    figures |= trust.step(
                        g.trust, g_steps, scene, belief.classes, opinions, part.labelled, config
                    )
                run.note(figures)
            if config.triplet and len(watched):
                run.note(_watch(d, g, watched, unseen, config, epoch))
            run.end_of_epoch(epoch, towers)
        return run.finish(towers)


def _discriminator_step(
    d: HashNetwork,
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
    u, v = scene.image, scene.text
    begun = epoch > config.warmup
    terms: Terms = {}
    if config.classes and bool((belief.classes > 0).any()):
        told = belief.classes.sum(1)
        if config.trust == "policy" and begun:
            opinions = d.codewords(u), d.codewords(v)
            told = told * g.trust.weights(belief.classes, opinions, part.labelled)
        terms["classes"] = config.classes * d.codewords.loss((u, v), belief.classes, told)
    targets = None
    if config.positives == "policy" and begun:
        target = losses.match_targets(scene.agreement, config.match_share)
        targets = g.positives.share_of(scene, target, belief.doubt, config.positive_share)
    terms |= groundwork.meaning(u, v, belief, config, targets)
    if config.triplet:
        terms["triplet"] = config.triplet * _triplets(g.negatives, scene, config, begun, rng)
    terms["bits"] = groundwork.bit_term(u, v, config)
    if critic is not None:
        critic.learn(torch.cat([u, v]))
        terms["code critic"] = config.code_critic * critic.term(torch.cat([u, v]))
    return groundwork.update(d, steps, terms), scene


def _scene(d: HashNetwork, part: Pairs, belief: Beliefs) -> Scene:
    """Codes and vectors of some pairs, and what is believed of who matches whom."""
    towers = d.towers
    vectors = towers.image.vectors(part.image), towers.text.vectors(part.text)
    codes = torch.tanh(towers.image.head(vectors[0])), torch.tanh(towers.text.head(vectors[1]))
    return Scene.of(codes, vectors, belief.agreement)


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
    d: HashNetwork, g: Adversary, pairs: Pairs, unseen: Beliefs, config: Config, epoch: int
) -> Mapping[str, float]:
    """What the adversary would pick among validation pairs, whose labels nobody learned from."""
    d.eval()
    truth = sampling.matches(pairs.labels, pairs.labelled)
    scene = _scene(d, pairs, unseen)
    return generator.watch(g.negatives, scene, truth, config, np.random.default_rng(epoch))

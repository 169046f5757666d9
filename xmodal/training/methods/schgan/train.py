"""SCH-GAN: Zhang, Peng, Yuan, "SCH-GAN: Semi-supervised cross-modal hashing by generative
adversarial network", arXiv 1802.02488; IEEE Transactions on Cybernetics 50(2), 2020.

Idea: the generator does not synthesise items. For a query of one modality it selects items of the
other modality from a pool that includes unlabelled items; it is a softmax policy over candidates.
The discriminator is the hash network: it ranks true matches above the selected items by a margin.
The generator is rewarded for items near the margin. Both directions alternate with the same
parameters; the codes of the discriminator are used for retrieval.

Departures from the paper:

- Features are unit vectors of frozen backbones; towers have LayerNorm, GELU and tanh; AdamW; large
  batches. The pool of candidates is the batch: all codes are current, and gradients reach query and
  candidate. Distances are shares of the bits, so the margin does not depend on K.
- Unlabelled items are used: with class probabilities as soft pseudo-labels and, for pairs whose
  class is uncertain, with their neighbours in the shared embedding space (``pseudo_labels``). All
  natural pairs are contrasted.
- Each class has a learned prototype; the temperature of the softmax over prototypes depends on the
  number of classes.
- The expectation of the policy over the pool is exact (``estimator="exact"``); ``"reinforce"`` is
  REINFORCE with a leave-one-out baseline. The temperature adapts to a target share of the pool, the
  width of the reward to the spread of d+ - d-. Candidates are weighted by 1 - match probability.
- A second policy can select positives for pairs whose class is uncertain (``positives``).
- Bits are regularised (quantisation, balance, decorrelation), with an optional critic of codes
  (``code_critic``). One best epoch for both directions is selected on validation pairs.

Measured effect of the generator, from benchmarks/results/schgan-ablation.md: expected mAP at 32
bits, mean of both directions, 5 seeds, differences paired by seed; fashion at 5, 10, 25 % labels,
and Wikipedia (RoPH, TF-IDF) at the same:

- Pseudo-labels have the largest effect. Without them Wikipedia falls from .348 .370 .401 to .291
  .308 .348.
- Hard negatives have a small effect. Semi-hard negatives against no triplets: fashion .861 .877
  .889 against .859 .877 .889, Wikipedia .348 .370 .401 against .340 .362 .394.
- Negatives that the policy selects are not better than semi-hard negatives: -.0014 +.0006 +.0006
  and -.0018 -.0060 -.0050, at 1.3 to 1.6 times the processor time; REINFORCE gives the same. The
  selected items are .1 of the bits from the margin, semi-hard ones .07; 10 to 20 % of both are true
  matches.
- Positives that a policy selects: +.0013 +.0002 +.0008 and +.0035 +.0017 +.0014 above the default.
  Only the first difference exceeds twice the standard deviation between paired seeds, and steps on
  fashion take 1.4 to 1.9 times as long: off by default.
- The hinge alone, with random or semi-hard negatives and pseudo-labels, is better than the default
  on Wikipedia: .367 .383 .407. It does not align instances: at 5 % labels 8 % of images have their
  own text among the first 10, 12 % with the default. There a policy reduces mAP by .01.

The tables also have the rows hardest, paced and trust: variants of earlier versions without a gain.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from xmodal.device import device
from xmodal.encoders.towers import Towers
from xmodal.training import losses, objective, policy
from xmodal.training.checkpoint import Stateful
from xmodal.training.critics import CodeCritic
from xmodal.training.methods.schgan.config import Config
from xmodal.training.methods.schgan.losses import correlation_score, negative_statistics
from xmodal.training.methods.schgan.networks import Generator, PositivePolicy
from xmodal.training.negatives import Candidates, log_policies, negative_step, triplet_loss
from xmodal.training.objective import ForwardPass, HashNetwork
from xmodal.training.pairs import Pairs, even_choice, match_matrix
from xmodal.training.pseudo_labels import PseudoLabels, label_pairs
from xmodal.training.run import Run, TrainingData

MAX_STATISTICS_PAIRS = 1000
"""Labelled validation pairs on which the selected negatives are compared with true labels."""


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train towers, discriminator and generator in turn; return those of the best epoch."""
    with torch.random.fork_rng():
        run.rng(0)
        pseudo_labeller = objective.fit_pseudo_labeller(data, config)
        pairs = data.train.to(device())
        pseudo_labels = label_pairs(pseudo_labeller, pairs)
        towers = data.towers(config.hidden, config.feature_dropout)
        d = HashNetwork(towers, objective.class_prototypes(data, config)).to(device())
        g = Generator(towers).to(device())
        d_optimiser = objective.hash_optimiser(d, config)
        g_optimiser = torch.optim.AdamW(g.parameters(), lr=config.policy_rate)
        state: dict[str, Stateful] = {"d": d, "g": g}
        state |= {"d_optimiser": d_optimiser, "g_optimiser": g_optimiser}
        critic = None
        if config.code_critic:
            critic = CodeCritic(data.bits).to(device())
            state |= critic.state("critic")
        labelled = data.validation.labelled.nonzero().flatten()
        rows = labelled[even_choice(len(labelled), MAX_STATISTICS_PAIRS)]
        held_out = data.validation.take(rows).to(device())
        unlabelled = replace(held_out, labelled=torch.zeros_like(held_out.labelled))
        held_out_labels = pseudo_labeller(unlabelled)
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            objective.set_learning_rate(d_optimiser, config, epoch)
            for rows in objective.batches(len(pairs), config, rng):
                figures, batch, candidates = _discriminator_step(
                    d,
                    g,
                    d_optimiser,
                    pairs.take(rows),
                    pseudo_labels.take(rows),
                    config,
                    epoch,
                    rng,
                    critic,
                )
                if config.negatives == "policy" and config.triplet:
                    figures |= negative_step(
                        g.negatives, g_optimiser, batch, candidates, config, rng
                    )
                if config.positives == "policy":
                    figures |= positive_step(g.positives, g_optimiser, batch, config)
                run.log(figures)
            if config.triplet and len(held_out):
                run.log(_statistics(d, g, held_out, held_out_labels, config, epoch))
            run.end_of_epoch(epoch, towers)
        return run.finish(towers)


def _discriminator_step(
    d: HashNetwork,
    g: Generator,
    optimiser: torch.optim.Optimizer,
    part: Pairs,
    labels: PseudoLabels,
    config: Config,
    epoch: int,
    rng: np.random.Generator,
    critic: CodeCritic | None = None,
) -> tuple[dict[str, float], ForwardPass, Candidates]:
    """One step of the hash network; returns its loss terms and the forward pass before it."""
    d.train()
    batch: ForwardPass = d(part.image, part.text)
    candidates = Candidates.of(labels.match_probability)
    warm = epoch > config.warmup
    terms = objective.class_loss(d, batch.codes, labels, config)
    targets = None
    if config.positives == "policy" and warm:
        target = losses.contrastive_targets(labels.match_probability, config.match_share)
        targets = g.positives.mix_targets(batch, target, labels.uncertainty, config.positive_share)
    terms |= objective.alignment_losses(batch.codes, labels, config, targets)
    if config.triplet:
        policies = log_policies(g.negatives, batch, candidates, config)
        hinge = triplet_loss(batch, candidates, policies, config, warm, rng)
        terms["triplet"] = config.triplet * hinge
    terms["bits"] = objective.bit_regulariser(batch.codes, config)
    if critic is not None:
        codes = torch.cat(batch.codes)
        critic.update_on(codes)
        terms["code critic"] = config.code_critic * critic.generator_loss(codes)
    return objective.update(d, optimiser, terms), batch, candidates


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
def _statistics(
    d: HashNetwork,
    g: Generator,
    pairs: Pairs,
    labels: PseudoLabels,
    config: Config,
    epoch: int,
) -> dict[str, float]:
    """Negatives selected among validation pairs, compared with their true labels."""
    d.eval()
    truth = match_matrix(pairs.labels, pairs.labelled)
    batch: ForwardPass = d(pairs.image, pairs.text)
    candidates = Candidates.of(labels.match_probability)
    policies = log_policies(g.negatives, batch, candidates, config)
    rng = np.random.default_rng(epoch)
    return negative_statistics(policies, batch, candidates, truth, config, rng)

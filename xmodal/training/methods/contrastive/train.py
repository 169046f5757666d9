"""Contrast between pictures and captions, for data whose captions decide.

Idea: in a batch of units a picture and a caption of the same unit attract each other, all others
repel (symmetric InfoNCE). In each step one of the captions of a unit is drawn at random, so that
captions of one picture are never negatives of each other; nor are equal captions of different
pictures. The towers begin as CCA, weighted by the canonical correlations and rotated by ITQ (a
linear model that is strong on few pairs), and learn a residual perceptron beside it.

- A caption's features are mixed with those of another caption of the same picture, which lies
  between both captions in the feature space (mixup of Zhang et al., ICLR 2018, within one unit).
- With labels, codes of both modalities also learn class prototypes, and units that share a label
  share a part of the contrastive target (:mod:`xmodal.training.objective`).
- ``negatives`` adds the hinge of SCH-GAN on negatives that its policy or a rule selects; its effect
  is in benchmarks/results/captions.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from xmodal.device import device
from xmodal.encoders.torch_encoder import RowTensor
from xmodal.encoders.towers import Towers, linear_map
from xmodal.features.rows import FeatureRows
from xmodal.features.units import Units
from xmodal.training import losses, pseudo_labels
from xmodal.training.checkpoint import Stateful
from xmodal.training.methods.contrastive.batches import Batch, Sampler
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.initial import start_from_linear_models
from xmodal.training.methods.contrastive.losses import caption_contrast
from xmodal.training.negatives import (
    Candidates,
    NegativePolicy,
    log_policies,
    negative_step,
    triplet_loss,
)
from xmodal.training.objective import ForwardPass, HashNetwork, Terms, update
from xmodal.training.pairs import StoredPairs, batches
from xmodal.training.prototypes import ClassPrototypes, class_temperature
from xmodal.training.pseudo_labels import LabelledLater, PseudoLabels
from xmodal.training.run import Run
from xmodal.training.validation import validation_recall

MIN_STEPS_PER_EPOCH = 8


@dataclass(frozen=True)
class CaptionData:
    """Training and validation units, and the width of the codes.

    ``raw_images``: the image features are pixels.
    """

    train: Units
    validation: Units
    bits: int
    raw_images: bool = False


@dataclass
class CaptionRun(Run):
    """A run whose last epoch is used; the recall of validation units is reported.

    The learning rate ends at 0, and the last epochs are equal within the noise of a validation
    part. Their number is a setting; benchmarks/tune.py compares several.
    """

    data: CaptionData  # type: ignore[assignment]

    def validate(self, towers: Towers) -> dict[str, float]:
        """Return R@1, R@5 and R@10 of the validation units, mean of both directions."""
        return validation_recall(towers, self.data.validation)

    def is_better(self, figures: Mapping[str, float]) -> bool:
        """Whether an epoch with these validation figures replaces the one before: always."""
        return True


def train(data: CaptionData, config: Config, run: Run) -> Towers:
    """Train the towers; return those of the last epoch."""
    with torch.random.fork_rng():
        rng = run.rng(0)
        towers = Towers(
            data.train.image.shape[1],
            data.train.text.shape[1],
            data.bits,
            hidden=config.hidden,
            raw_images=data.raw_images,
            dropout=config.dropout,
            kind="residual",
        )
        start_from_linear_models(towers, data.train, data.raw_images, rng)
        trainer = _Trainer(towers, data, config)
        for epoch in run.epochs(config.epochs, trainer.state(), patience_from=config.epochs):
            for figures in trainer.epoch(epoch, run.rng(epoch)):
                run.log(figures)
            run.end_of_epoch(epoch, towers)
        return run.finish(towers)


class _Trainer:
    """Networks and optimisers of one run."""

    def __init__(self, towers: Towers, data: CaptionData, config: Config) -> None:
        self.config, self.n = config, len(data.train)
        self.labels = _pseudo_labels(data, config)
        classes = 0 if self.labels is None else data.train.labels.shape[1]
        temperature = class_temperature(max(2, classes), config.certainty)
        prototypes = ClassPrototypes(classes, data.bits, temperature)
        self.network = HashNetwork(towers, prototypes).to(device())
        self.optimiser = _optimiser(towers, prototypes, data.raw_images, config)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.policy = NegativePolicy(towers).to(device())
        self.policy_optimiser = torch.optim.AdamW(self.policy.parameters(), lr=config.policy_rate)
        self.sampler = Sampler(data.train, config.caption_mix, device())
        self.steps = -(-self.n // batch_size(self.n, config))

    def state(self) -> dict[str, Stateful]:
        """Return everything that a stopped run needs."""
        return {
            "network": self.network,
            "optimiser": self.optimiser,
            "policy": self.policy,
            "policy_optimiser": self.policy_optimiser,
        }

    def epoch(self, epoch: int, rng: np.random.Generator) -> Iterator[dict[str, float]]:
        """Make the steps of an epoch; yield the figures of each."""
        first = (epoch - 1) * self.steps
        rows = batches(self.n, batch_size(self.n, self.config), rng)
        for step, chosen in enumerate(rows, first):
            factor = rate_factor(step, self.steps * self.config.epochs, self.config.warmup_steps)
            for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
                group["lr"] = rate * factor
            labels = None if self.labels is None else self.labels.take(chosen.to(device()))
            batch = self.sampler.batch(chosen.numpy(), rng)
            yield self._step(batch, labels, epoch > self.config.warmup, rng)

    def _step(
        self, batch: Batch, labels: PseudoLabels | None, warm: bool, rng: np.random.Generator
    ) -> dict[str, float]:
        config = self.config
        self.network.train()
        forward: ForwardPass = self.network(batch.image, batch.text)
        u, v = forward.codes
        terms: Terms = {}
        match = batch.equal | torch.eye(len(u), dtype=torch.bool, device=u.device)
        if labels is None:
            terms["pairs"] = caption_contrast(u, v, config.temperature, batch.equal)
        else:
            probability = torch.maximum(labels.match_probability, match.float())
            target = losses.contrastive_targets(probability, config.match_share)
            terms["pairs"] = losses.contrastive_loss(u, v, (target, target), config.temperature)
            loss = self.network.prototypes.loss(forward.codes, labels.classes)
            terms["classes"] = config.label_weight * loss
        if config.negatives != "none":
            candidates = Candidates(match, (~match).float())
            policies = log_policies(self.policy, forward, candidates, config)
            hinge = triplet_loss(forward, candidates, policies, config, warm, rng)
            terms["triplet"] = config.triplet * hinge
        terms["bits"] = config.quantise * (losses.quantisation(u) + losses.quantisation(v))
        figures = update(self.network, self.optimiser, terms)
        if config.negatives == "policy":
            figures |= negative_step(
                self.policy, self.policy_optimiser, forward, candidates, config, rng
            )
        return figures


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate at ``step`` of ``steps``: linear warm-up, cosine to 0."""
    return min(1.0, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def batch_size(n: int, config: Config) -> int:
    """Units a step, for n training units."""
    return max(2, min(config.batch, n // MIN_STEPS_PER_EPOCH))


def _optimiser(
    towers: Towers, prototypes: ClassPrototypes, raw_images: bool, config: Config
) -> torch.optim.AdamW:
    """Return AdamW; the linear maps that begin as CCA have a lower rate and no decay."""
    begun = [towers.text] if raw_images else [towers.image, towers.text]
    linear = [parameter for tower in begun for parameter in linear_map(tower).parameters()]
    known = set(map(id, linear))
    others = [p for p in (*towers.parameters(), *prototypes.parameters()) if id(p) not in known]
    return torch.optim.AdamW(
        [
            {"params": others, "lr": config.learning_rate, "weight_decay": config.weight_decay},
            {
                "params": linear,
                "lr": config.learning_rate * config.linear_rate,
                "weight_decay": 0.0,
            },
        ]
    )


def _pseudo_labels(data: CaptionData, config: Config) -> PseudoLabels | LabelledLater | None:
    """Return the labels of the training units, None without any label."""
    units = data.train
    if not (units.labelled.any() and units.labels.shape[1]):
        return None
    pairs = StoredPairs(
        RowTensor(FeatureRows.of(units.image).take(units.image_offsets[:-1])),
        RowTensor(FeatureRows.of(units.text).take(units.text_offsets[:-1])),
        RowTensor(FeatureRows(units.labels)),
        torch.from_numpy(units.labelled),
    ).to(device())
    labeller = pseudo_labels.fit(
        pairs,
        directions=config.directions,
        label_unlabelled=config.pseudo_labels,
        raw_images=data.raw_images,
    )
    return pseudo_labels.label_pairs(labeller, pairs)

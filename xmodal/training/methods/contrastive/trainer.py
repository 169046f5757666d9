"""Data, networks, steps and rates of one training of the contrastive method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from xmodal.device import device
from xmodal.encoders.torch_encoder import RowTensor
from xmodal.encoders.towers import Towers, linear_map
from xmodal.features.rows import FeatureRows
from xmodal.features.states import Sides
from xmodal.features.units import Units
from xmodal.features.unpaired import Unpaired
from xmodal.training import losses, pseudo_labels
from xmodal.training.checkpoint import Stateful
from xmodal.training.methods.contrastive.batches import Batch, Sampler
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.losses import caption_contrast, taught_contrast
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

MIN_STEPS_PER_EPOCH = 8
PREFIX_POWER = 0.5
"""The contrast of n bits has the weight n to minus this power, among those of prefixes."""


@dataclass(frozen=True)
class CaptionData:
    """Training and validation units, and the width of the codes.

    ``raw_images``: the image features are pixels. ``unpaired``: further pictures and captions that
    may be used. ``weights`` (n,): of the training units in the contrast, 1 if None. ``given``:
    number of training units before the chosen ones, which are last. ``sides``: modalities whose
    backbones have blocks that are trained; their features are read by rows of the states.
    """

    train: Units
    validation: Units
    bits: int
    raw_images: bool = False
    unpaired: Unpaired | None = None
    weights: npt.NDArray[np.float32] | None = None
    given: int = 0
    sides: Sides = field(default_factory=dict)


class Trainer:
    """Networks and optimisers of one run."""

    def __init__(
        self, towers: Towers, data: CaptionData, config: Config, teachers: Sequence[Towers] = ()
    ) -> None:
        self.config, self.n = config, len(data.train)
        self.teachers = [one.to(device()).eval() for one in teachers]
        self.towers, self.data = towers, data
        self.weights = None if data.weights is None else torch.from_numpy(data.weights)
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
        self.shares = width_shares((*config.prefix_widths(data.bits), data.bits), PREFIX_POWER)

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
            weight = None if self.weights is None else self.weights[chosen].to(device())
            taught = None
            if self.teachers:
                taught = self._taught(batch), (chosen >= self.data.given).to(device())
            yield self._step(batch, labels, weight, taught, epoch > self.config.warmup, rng)

    def validation(self) -> Units:
        """Return the validation units with their features of this epoch."""
        return self.data.validation

    def contrast(
        self,
        u: torch.Tensor,
        v: torch.Tensor,
        batch: Batch,
        matches: torch.Tensor | None,
        weight: torch.Tensor | None,
        taught: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """The contrast between relaxed codes, or the first bits of them, (b, w) both.

        ``matches`` (b, b): probabilities that pairs match, with labels. ``weight`` (b,): of the
        pairs. ``taught``: see :func:`taught_contrast`.
        """
        temperature = self.config.temperature
        if taught is not None and weight is not None:
            return taught_contrast(u, v, temperature, *taught, weight)
        if matches is None:
            return caption_contrast(u, v, temperature, batch.equal, weight)
        target = losses.contrastive_targets(matches, self.config.match_share)
        weight = None if weight is None else weight / weight.mean()
        return losses.contrastive_loss(u, v, (target, target), temperature, weight)

    @torch.no_grad()
    def _taught(self, batch: Batch) -> torch.Tensor:
        """Return the mean similarities of the teachers, by their temperature, (b, b)."""
        similarity = torch.zeros((), device=device())
        for towers in self.teachers:
            image, text = (
                functional.normalize(torch.tanh(tower.outputs(features)), dim=1)
                for tower, features in ((towers.image, batch.image), (towers.text, batch.text))
            )
            similarity = similarity + image @ text.T / len(self.teachers)
        return similarity / self.config.unpaired_temperature

    def _step(
        self,
        batch: Batch,
        labels: PseudoLabels | None,
        weight: torch.Tensor | None,
        taught: tuple[torch.Tensor, torch.Tensor] | None,
        warm: bool,
        rng: np.random.Generator,
    ) -> dict[str, float]:
        config = self.config
        self.network.train()
        forward: ForwardPass = self.network(batch.image, batch.text)
        u, v = forward.codes
        terms: Terms = {}
        match = batch.equal | torch.eye(len(u), dtype=torch.bool, device=u.device)
        if taught is not None:
            labels = None  # the similarities of the teachers are the targets
        matches = None if labels is None else torch.maximum(labels.match_probability, match.float())
        terms["pairs"] = torch.stack(
            [
                share * self.contrast(u[:, :width], v[:, :width], batch, matches, weight, taught)
                for width, share in self.shares.items()
            ]
        ).sum()
        if labels is not None:
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


def width_shares(widths: Sequence[int], power: float) -> dict[int, float]:
    """Return the share of the contrast of each number of first bits; their sum is 1."""
    sizes = [width**-power for width in widths]
    return {width: size / sum(sizes) for width, size in zip(widths, sizes, strict=True)}


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

"""The objective and the settings that four methods share, without any adversary.

Three terms train the codes. Class labels, and pseudo-labels of unlabelled pairs
(``pseudo_labels``), attract codes to learned class prototypes; natural pairs and other probable
matches are contrasted; pairs whose class is uncertain keep their neighbours in the shared embedding
space. A fourth term regularises bits: binary, balanced, uncorrelated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from xmodal.config import check_at_least, check_at_most
from xmodal.encoders.towers import Towers
from xmodal.training import losses, pairs, pseudo_labels
from xmodal.training.prototypes import ClassPrototypes, class_temperature
from xmodal.training.pseudo_labels import PseudoLabeller, PseudoLabels
from xmodal.training.run import TrainingData, learning_rate_factor

MIN_STEPS_PER_EPOCH = 8
BLOCK_ROWS = 1 << 16
"""Pairs whose labels are read at once."""
MAX_GRAD_NORM = 5.0

Terms = dict[str, torch.Tensor]
"""Weighted terms of a loss by name; each is a scalar."""
ImageText = tuple[torch.Tensor, torch.Tensor]
"""A tensor of the images and the same of the texts."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Settings of the shared objective; a method adds its own and changes defaults."""

    epochs: int = 30
    batch: int = 512
    """Pairs a step; fewer where an epoch would have under 8 steps."""
    hidden: int = 512
    """Hidden units of the towers."""
    feature_dropout: float = 0.3
    """Dropout rate of the towers' input features."""
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2

    pseudo_labels: bool = True
    """Train unlabelled pairs on predicted class probabilities."""
    pairs: float = 0.7
    """Weight of the contrastive loss of natural pairs and other matches. For instance retrieval,
    increase it."""
    match_share: float = 0.3
    """Share of the contrastive target for all probable matches; the natural pair has the rest."""
    temperature: float = 0.1
    """Temperature of softmaxes over code similarities, which lie in [-1, 1]."""
    neighbours: float = 2.0
    """Weight of the neighbourhood term, for pairs whose class is uncertain."""
    neighbour_temperature: float = 0.1
    """Temperature of the softmax over similarities in the shared embedding space."""
    directions: int = 64
    """Canonical directions: dimensions of the shared embedding space."""
    quantise: float = 0.1
    balance: float = 0.1
    decorrelate: float = 0.1
    code_critic: float = 0.0
    """Weight of a critic that compares codes with random bits; 0: no critic."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "epochs", "hidden", "directions")
        check_at_least(self, 2, "batch")
        check_at_least(self, 0, "weight_decay", "pairs", "neighbours", "code_critic")
        check_at_least(self, 0, "quantise", "balance", "decorrelate")
        rates = ("learning_rate", "temperature", "neighbour_temperature")
        check_at_least(self, 1e-9, *rates)
        check_at_least(self, 0, "feature_dropout", "match_share")
        check_at_most(self, 1, "feature_dropout", "match_share")


@dataclass(frozen=True, kw_only=True)
class ClassObjectiveConfig(ObjectiveConfig):
    """Settings of the shared objective with class prototypes."""

    classes: float = 3.0
    """Weight of the cross-entropy to the class prototypes."""
    certainty: float = 0.85
    """Softmax probability of a class for a code that equals its prototype, with all other
    prototypes orthogonal to it; determines the temperature by the number of classes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "classes")
        check_at_least(self, 0.6, "certainty")
        check_at_most(self, 0.9999, "certainty")


# ---- networks --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForwardPass:
    """Outputs of the towers for a batch of n pairs.

    ``codes``: relaxed codes (n, K). ``vectors``: inputs of the towers' heads (n, width). Both are
    tuples of images and texts.
    """

    codes: ImageText
    vectors: ImageText

    @classmethod
    def of(cls, towers: Towers, image: torch.Tensor, text: torch.Tensor) -> ForwardPass:
        """Apply both towers to features (n, d_image) and (n, d_text)."""
        vectors = towers.image.vectors(image), towers.text.vectors(text)
        codes = towers.image.head(vectors[0]), towers.text.head(vectors[1])
        return cls((torch.tanh(codes[0]), torch.tanh(codes[1])), vectors)

    def detached(self, n: int | None = None) -> ForwardPass:
        """Return the first ``n`` pairs, all by default, without gradients."""
        (u, v), (image, text) = self.codes, self.vectors
        return ForwardPass(
            (u[:n].detach(), v[:n].detach()), (image[:n].detach(), text[:n].detach())
        )


class HashNetwork(nn.Module):
    """The towers and the class prototypes."""

    def __init__(self, towers: Towers, prototypes: ClassPrototypes) -> None:
        super().__init__()
        self.towers, self.prototypes = towers, prototypes

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> ForwardPass:
        """Apply both towers to features (n, d_image) and (n, d_text)."""
        return ForwardPass.of(self.towers, image, text)


# ---- before training -------------------------------------------------------------------------


def fit_pseudo_labeller(data: TrainingData, config: ObjectiveConfig) -> PseudoLabeller:
    """Fit the pseudo-labeller to the training pairs."""
    return pseudo_labels.fit(
        data.train,
        directions=config.directions,
        label_unlabelled=config.pseudo_labels,
        raw_images=data.raw_images,
    )


def class_prototypes(data: TrainingData, config: ClassObjectiveConfig) -> ClassPrototypes:
    """Return untrained prototypes; the temperature is for the classes with labelled pairs."""
    present = torch.zeros(data.classes, dtype=torch.bool)
    for rows in data.train.labelled.nonzero().flatten().split(BLOCK_ROWS):
        present |= (data.train.labels[rows] > 0).any(0).cpu()
    temperature = class_temperature(int(present.sum()), config.certainty)
    return ClassPrototypes(data.classes, data.bits, temperature)


def hash_optimiser(network: nn.Module, config: ObjectiveConfig) -> torch.optim.AdamW:
    """Return AdamW for the hash network."""
    rate, decay = config.learning_rate, config.weight_decay
    return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)


def batch_size(n: int, config: ObjectiveConfig) -> int:
    """Pairs a step, for n training pairs."""
    return max(2, min(config.batch, n // MIN_STEPS_PER_EPOCH))


def batches(n: int, config: ObjectiveConfig, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Yield the rows of each step of an epoch."""
    return pairs.batches(n, batch_size(n, config), rng)


def set_learning_rate(
    optimiser: torch.optim.Optimizer, config: ObjectiveConfig, epoch: int
) -> None:
    """Set the learning rate of an epoch."""
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * learning_rate_factor(epoch, config.epochs)


# ---- a step ----------------------------------------------------------------------------------


def class_loss(
    network: HashNetwork, codes: ImageText, labels: PseudoLabels, config: ClassObjectiveConfig
) -> Terms:
    """Cross-entropy of codes (n, K) to the prototypes of their classes; empty without classes."""
    if not config.classes or not bool((labels.classes > 0).any()):
        return {}
    return {"classes": config.classes * network.prototypes.loss(codes, labels.classes)}


def alignment_losses(
    codes: ImageText,
    labels: PseudoLabels,
    config: ObjectiveConfig,
    targets: ImageText | None = None,
) -> Terms:
    """Contrastive loss of matches and neighbourhood loss of codes (n, K).

    ``targets``: contrastive targets of both directions, each (n, n); by default
    ``contrastive_targets`` of the match probabilities.
    """
    u, v = codes
    terms: Terms = {}
    if config.pairs:
        if targets is None:
            target = losses.contrastive_targets(labels.match_probability, config.match_share)
            targets = target, target
        terms["pairs"] = config.pairs * losses.contrastive_loss(u, v, targets, config.temperature)
    uncertainty = labels.uncertainty
    if config.neighbours and bool((uncertainty > 0).any()):
        cosine = labels.embedding @ labels.embedding.T
        near = torch.softmax(cosine / config.neighbour_temperature, dim=1)
        loss = losses.contrastive_loss(u, v, (near, near), config.temperature, uncertainty)
        terms["neighbours"] = config.neighbours * uncertainty.mean() * loss
    return terms


def bit_regulariser(codes: ImageText, config: ObjectiveConfig) -> torch.Tensor:
    """Weighted quantisation, balance and decorrelation of codes (n, K), sum of both modalities."""
    total = torch.zeros((), device=codes[0].device)
    for u in codes:
        bits = config.quantise * losses.quantisation(u) + config.balance * losses.balance(u)
        total = total + bits + config.decorrelate * losses.decorrelation(u)
    return total


def update(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    terms: Terms,
    also: Iterable[nn.Parameter] = (),
) -> dict[str, float]:
    """Make one step of ``network`` on the sum of the terms; return their values.

    The gradient norm is clipped to ``MAX_GRAD_NORM``. Gradients are accumulated in the parameters
    of ``network`` and in ``also``, in no others.
    """
    parameters = list(network.parameters())
    optimiser.zero_grad()
    torch.stack(list(terms.values())).sum().backward(inputs=[*parameters, *also])
    nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
    optimiser.step()
    return values(terms)


def values(terms: Terms) -> dict[str, float]:
    """Return the terms as numbers."""
    return {name: float(value.detach()) for name, value in terms.items()}

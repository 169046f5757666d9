"""The groundwork that four methods stand on: what their towers learn without any adversary.

Three terms give codes their meaning. Labels, and what both sides of a pair suggest together of
unlabelled ones (``beliefs``), draw codes to learned codewords; natural pairs and other likely
matches are contrasted; pairs whose class is in doubt keep their neighbours in the space that both
modalities share. A fourth keeps bits binary, balanced and uncorrelated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from xmodal.config import check_at_least, check_at_most
from xmodal.towers import Towers
from xmodal.training import losses
from xmodal.training import pairs as sampling
from xmodal.training.prototypes import Codewords, class_temperature
from xmodal.training.pseudo_labels import Beliefs, Believe, learn
from xmodal.training.run import TrainingData, schedule

STEPS = 8
"""The least number of steps an epoch."""
LONGEST = 5.0
"""Of a step's gradient."""

Terms = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Groundwork:
    """Settings of it; a method's Config adds its own, and says where its defaults differ."""

    epochs: int = 30
    batch: int = 512
    """Pairs a step; fewer where an epoch would have under 8 steps."""
    hidden: int = 512
    """Units of the towers."""
    feature_dropout: float = 0.3
    """Share of the features that a training step hides from the towers."""
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2

    pseudo_labels: bool = True
    """Whether unlabelled pairs learn the classes that both of their sides together suggest."""
    pairs: float = 0.7
    """Weight of the contrast of natural pairs and other matches."""
    match_share: float = 0.3
    """How much of that contrast goes to all likely matches, the rest to the natural pair."""
    temperature: float = 0.1
    """Of softmaxes over code similarities, which lie in [-1, 1]."""
    neighbours: float = 2.0
    """Weight of keeping neighbours in the shared space, for pairs whose class is in doubt."""
    neighbour_temperature: float = 0.1
    directions: int = 64
    """Canonical directions of the shared space."""
    quantise: float = 0.1
    balance: float = 0.1
    decorrelate: float = 0.1
    code_critic: float = 0.0
    """Weight of a critic that tells codes from coin flips; 0: there is none."""

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
class ClassGroundwork(Groundwork):
    """With a codeword for each class."""

    classes: float = 3.0
    """Weight of the cross-entropy to the classes' codewords."""
    certainty: float = 0.85
    """Posterior of a class whose codeword a code equals while the other codewords are orthogonal:
    the more classes, the lower the temperature has to be."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "classes")
        check_at_least(self, 0.6, "certainty")
        check_at_most(self, 0.9999, "certainty")


class HashNetwork(nn.Module):
    """The towers, and a codeword for each class."""

    def __init__(self, towers: Towers, codewords: Codewords) -> None:
        super().__init__()
        self.towers, self.codewords = towers, codewords


# ---- before training -------------------------------------------------------------------------


def believer(data: TrainingData, config: Groundwork) -> Believe:
    """What gives beliefs about any pairs, learned from those of training."""
    return learn(
        data.train,
        directions=config.directions,
        tell_unlabelled=config.pseudo_labels,
        raw_images=data.raw_images,
    )


def codewords(data: TrainingData, config: ClassGroundwork) -> Codewords:
    """Fresh ones, at the temperature for as many classes as labelled pairs have."""
    told = int((data.train.labels[data.train.labelled].sum(0) > 0).sum())
    return Codewords(data.classes, data.bits, class_temperature(told, config.certainty))


def optimiser(model: nn.Module, config: Groundwork) -> torch.optim.AdamW:
    """AdamW of the hash network."""
    rate, decay = config.learning_rate, config.weight_decay
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)


def batch_size(n: int, config: Groundwork) -> int:
    """Pairs a step, of n."""
    return max(2, min(config.batch, n // STEPS))


def batches(n: int, config: Groundwork, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """The rows of each step of an epoch."""
    return sampling.batches(n, batch_size(n, config), rng)


def set_rate(steps: torch.optim.Optimizer, config: Groundwork, epoch: int) -> None:
    """The learning rate of an epoch."""
    for group in steps.param_groups:
        group["lr"] = config.learning_rate * schedule(epoch, config.epochs)


# ---- a step ----------------------------------------------------------------------------------


def meaning(
    u: torch.Tensor,
    v: torch.Tensor,
    belief: Beliefs,
    config: Groundwork,
    targets: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Terms:
    """Natural pairs and other matches, and neighbours; u, v (n, K): codes of images and texts.

    ``targets`` of both directions of the first, each (n, n); by default those of the beliefs.
    """
    terms: Terms = {}
    if config.pairs:
        if targets is None:
            target = losses.match_targets(belief.agreement, config.match_share)
            targets = target, target
        terms["pairs"] = config.pairs * losses.contrast(u, v, targets, config.temperature)
    if config.neighbours and bool((belief.doubt > 0).any()):
        near = torch.softmax(belief.place @ belief.place.T / config.neighbour_temperature, dim=1)
        kept = losses.contrast(u, v, (near, near), config.temperature, belief.doubt)
        terms["neighbours"] = config.neighbours * belief.doubt.mean() * kept
    return terms


def bit_term(u: torch.Tensor, v: torch.Tensor, config: Groundwork) -> torch.Tensor:
    """Quantisation, balance and decorrelation of the codes of both modalities, each (n, K)."""
    total = torch.zeros((), device=u.device)
    for codes in (u, v):
        bits = config.quantise * losses.quantisation(codes) + config.balance * losses.balance(codes)
        total = total + bits + config.decorrelate * losses.decorrelation(codes)
    return total


def update(
    model: nn.Module,
    steps: torch.optim.Optimizer,
    terms: Terms,
    also: Iterable[nn.Parameter] = (),
) -> dict[str, float]:
    """One step of ``model`` on the sum of the terms; what each of them was.

    ``also``: other parameters that get their gradients on the way. Nobody else's does.
    """
    parameters = list(model.parameters())
    steps.zero_grad()
    torch.stack(list(terms.values())).sum().backward(inputs=[*parameters, *also])
    nn.utils.clip_grad_norm_(parameters, LONGEST)
    steps.step()
    return {name: float(value.detach()) for name, value in terms.items()}

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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from xmodal.encoders.towers import Towers
from xmodal.features.unpaired import Unpaired
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.initial import start_from_linear_models
from xmodal.training.methods.contrastive.selection import Embedded, choose
from xmodal.training.methods.contrastive.trainer import CaptionData, Trainer
from xmodal.training.methods.contrastive.unpaired import Choice, join
from xmodal.training.run import Run
from xmodal.training.validation import validation_recall


@dataclass
class CaptionRun(Run):
    """A run whose last epoch is used; the recall of validation units is reported.

    The learning rate ends at 0, and the last epochs are equal within the noise of a validation
    part. Their number is a setting; benchmarks/tune.py compares several.
    """

    data: CaptionData  # type: ignore[assignment]
    choices: list[Choice] = field(default_factory=list)
    """Chosen pairs of each round since the run was begun or continued."""

    def validate(self, towers: Towers) -> dict[str, float]:
        """Return R@1, R@5 and R@10 of the validation units, mean of both directions."""
        return validation_recall(towers, self.data.validation)

    def is_better(self, figures: Mapping[str, float]) -> bool:
        """Whether an epoch with these validation figures replaces the one before: always."""
        return True


def train(data: CaptionData, config: Config, run: CaptionRun) -> Towers:
    """Train the towers; return those of the last epoch.

    Data with pictures and captions without a pair is trained in rounds, see :class:`Rounds`.
    """
    with torch.random.fork_rng():
        rounds = Rounds(data, config, run)
        epochs = run.epochs(rounds.epochs, {"rounds": rounds}, patience_from=rounds.epochs)
        for epoch in epochs:
            for figures in rounds.epoch(epoch):
                run.log(figures)
            run.end_of_epoch(epoch, rounds.trainer.towers)
        return run.finish(rounds.trainer.towers)


class Rounds:
    """Trainings one after the other: on pairs, then on pairs and chosen pairs of unpaired data.

    Each round has all epochs of the configuration and begins with a linear model of its data. The
    towers of the round before choose the pairs.
    """

    def __init__(self, data: CaptionData, config: Config, run: CaptionRun) -> None:
        self._data, self._config, self._run = data, config, run
        rounds = 1
        if config.unpaired != "none" and data.unpaired is not None:
            rounds += config.unpaired_rounds
        self.epochs = rounds * config.epochs
        self._number = 0
        self._before: Towers | None = None
        self._trainer: Trainer | None = None

    @property
    def trainer(self) -> Trainer:
        """The training of the round that began last."""
        assert self._trainer is not None
        return self._trainer

    def epoch(self, epoch: int) -> Iterator[dict[str, float]]:
        """Make the steps of an epoch, counted from 1; yield the figures of each."""
        number, before = divmod(epoch - 1, self._config.epochs)
        if not before:
            rng = self._run.rng(number * self._config.epochs)
            self._begin(number, self.trainer.towers if number else None)
            start = self.trainer.data.train
            start_from_linear_models(self.trainer.towers, start, self._data.raw_images, rng)
        yield from self.trainer.epoch(before + 1, self._run.rng(epoch))

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the round, the towers before it, and the state of its training."""
        before = {} if self._before is None else self._before.state_dict()
        parts = {name: part.state_dict() for name, part in self.trainer.state().items()}
        return {"number": self._number, "before": before, **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; the choice of its round is repeated."""
        before = self._initial() if state["before"] else None
        if before is not None:
            before.load_state_dict(state["before"])
        self._begin(state["number"], before)
        for name, part in self.trainer.state().items():
            part.load_state_dict(state[name])

    def _begin(self, number: int, before: Towers | None) -> None:
        """Begin a round with untrained towers, on the choice of the towers before it."""
        data, config = self._data, self._config
        if before is not None and data.unpaired is not None:
            rng = np.random.default_rng([self._run.seed, number])
            choice = choose(Embedded.of(before, data.unpaired), config, rng)
            self._run.choices.append(choice)
            data = with_choice(data, data.unpaired, choice, config.unpaired_weight)
        self._number, self._before = number, before
        self._trainer = Trainer(self._initial(), data, config)

    def _initial(self) -> Towers:
        data, config = self._data, self._config
        return Towers(
            data.train.image.shape[1],
            data.train.text.shape[1],
            data.bits,
            hidden=config.hidden,
            raw_images=data.raw_images,
            dropout=config.dropout,
            kind="residual",
        )


def with_choice(
    data: CaptionData, unpaired: Unpaired, choice: Choice, weight: float
) -> CaptionData:
    """Return the data with units of chosen pairs, which have this weight, after its own."""
    train = join(data.train, unpaired, choice)
    weights = np.ones(len(train), np.float32)
    weights[len(data.train) :] = weight
    return replace(data, train=train, weights=weights)

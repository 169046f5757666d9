"""Contrast between pictures and captions, for data whose captions decide.

Idea: in a batch of units a picture and a caption of the same unit attract each other, all others
repel (symmetric InfoNCE). In each step one of the captions of a unit is drawn at random, so that
captions of one picture are never negatives of each other; nor are equal captions of different
pictures. The towers begin as CCA, weighted by the canonical correlations, in a frame or rotated
by ITQ (a linear model that is strong on few pairs), and learn a residual perceptron beside it.

- A caption's features are mixed with those of another caption of the same picture, which lies
  between both captions in the feature space (mixup of Zhang et al., ICLR 2018, within one unit).
- With labels, codes of both modalities also learn class prototypes, and units that share a label
  share a part of the contrastive target (:mod:`xmodal.training.objective`).
- With ``fine_tune`` the last blocks of the backbones are trained too
  (:mod:`xmodal.training.methods.contrastive.tuning`).
- ``negatives`` adds the hinge of SCH-GAN on negatives that its policy or a rule selects; its effect
  is in benchmarks/results/captions.md.
- Pictures and captions without a pair are used in further trainings: on pairs that a rule or a
  policy chooses (:mod:`xmodal.training.methods.contrastive.selection`), or on the similarities of
  several towers (``unpaired="distilled"``).
- Pairs that are probably wrong can be left out (``noise``), see
  :mod:`xmodal.training.methods.contrastive.sieve`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from xmodal.device import device
from xmodal.encoders.folder import LEFT_OUT
from xmodal.encoders.towers import Towers
from xmodal.features.units import Units
from xmodal.features.unpaired import Unpaired
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.generator import policy_choice
from xmodal.training.methods.contrastive.initial import start_from_linear_models
from xmodal.training.methods.contrastive.noise import Sifted
from xmodal.training.methods.contrastive.selection import Embedded, choose
from xmodal.training.methods.contrastive.sieve import Sieve
from xmodal.training.methods.contrastive.trainer import CaptionData, Trainer
from xmodal.training.methods.contrastive.tuning import TunedTrainer
from xmodal.training.methods.contrastive.unpaired import Choice, join
from xmodal.training.run import Run
from xmodal.training.validation import validation_recall
from xmodal.writing import write_text

HELD_OUT_EVERY = 4
"""One unit of so many is held out from the discriminator of the policy."""


@dataclass
class CaptionRun(Run):
    """A run whose last epoch is used; the recall of validation units is reported.

    The learning rate ends at 0, and the last epochs are equal within the noise of a validation
    part. Their number is a setting; benchmarks/tune.py compares several.
    """

    data: CaptionData  # type: ignore[assignment]
    choices: list[Choice] = field(default_factory=list)
    """Chosen pairs of each round since the run was begun or continued."""
    sifted: Sifted | None = None
    """Pairs that were judged, None if all are used."""
    measured: Units | None = None
    """Validation units with the features of this epoch; None: those of ``data``."""

    def validate(self, towers: Towers) -> dict[str, float]:
        """Return R@1, R@5 and R@10 of the validation units, mean of both directions."""
        return validation_recall(towers, self.measured or self.data.validation)

    def write_left_out(self, folder: Path) -> None:
        """Write ``left_out.jsonl``, a line for each pair that is left out, if pairs were judged."""
        if self.sifted is not None:
            write_text(folder / LEFT_OUT, "".join(f"{line}\n" for line in self.sifted.lines()))

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
            run.measured = rounds.trainer.validation()
            run.end_of_epoch(epoch, rounds.trainer.towers)
        return run.finish(rounds.trainer.towers)


@dataclass(frozen=True)
class Stage:
    """One training. ``by``: numbers of the trainings before it whose towers it uses.

    ``part``: on a part of the pairs; ``pairs``: on all of them; ``chosen``: also on pairs that the
    towers choose; ``taught``: also on unpaired data, with the similarities of the towers.
    """

    kind: Literal["part", "pairs", "chosen", "taught"]
    by: tuple[int, ...] = ()


def stages(config: Config, *, unpaired: bool) -> list[Stage]:
    """Return the trainings; ``unpaired``: on data with unpaired pictures and captions.

    A training of blocks of the backbones uses the pairs alone.
    """
    if not unpaired or config.unpaired == "none" or config.blocks:
        return [Stage("pairs")]
    if config.unpaired == "distilled":
        students = tuple(range(1, 1 + config.unpaired_students))
        return [
            Stage("pairs"),
            *(Stage("chosen", (0,)) for _ in students),
            Stage("taught", students),
        ]
    first = [Stage("pairs")] if config.unpaired != "policy" else [Stage("part"), Stage("pairs")]
    rounds = range(len(first), len(first) + config.unpaired_rounds)
    return [*first, *(Stage("chosen", (number - 1,)) for number in rounds)]


class Rounds:
    """Trainings one after the other: on pairs, then on pairs and chosen pairs of unpaired data.

    Trainings that judge the pairs come first, if there are any. Each round has all epochs of the
    configuration and begins with a linear model of its data.
    """

    def __init__(self, data: CaptionData, config: Config, run: CaptionRun) -> None:
        self._data, self._config, self._run = data, config, run
        self._stages = stages(config, unpaired=data.unpaired is not None)
        self.sieve = Sieve(data, config, run.seed, self._linear)
        self._first = self.sieve.trainings
        self.epochs = (self._first + len(self._stages)) * config.epochs
        self._finished: list[Towers] = []
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
            if number:
                self._finished.append(self.trainer.towers.eval())
            rng = self._run.rng(number * self._config.epochs)
            self._begin()
            self._start(self.trainer.towers, self.trainer.data.train, rng)
        yield from self.trainer.epoch(before + 1, self._run.rng(epoch))

    def state_dict(self) -> dict[str, Any]:
        """Return the towers of the finished rounds, and the state of the training of this one."""
        parts = {name: part.state_dict() for name, part in self.trainer.state().items()}
        return {"finished": [towers.state_dict() for towers in self._finished], **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; the choice of its round is repeated."""
        for saved in state["finished"]:
            towers = self._initial().eval()
            towers.load_state_dict(saved)
            self._finished.append(towers.to(device()))
        self._run.rng(len(self._finished) * self._config.epochs)
        self._begin()
        for name, part in self.trainer.state().items():
            part.load_state_dict(state[name])

    def _begin(self) -> None:
        """Begin the next round with untrained towers."""
        number, towers = len(self._finished), self._initial()
        if number < self._first:
            data = replace(self._data, train=self.sieve.part(number))
            self._trainer = Trainer(towers, data, self._config)
            return
        stage, data = self._stages[number - self._first], self._kept
        if self._config.blocks:
            self._trainer = TunedTrainer(towers, data, self._config)
            return
        by = [self._finished[self._first + one] for one in stage.by]
        if stage.kind == "part":
            data = replace(data, train=_part(data.train, held_out=False))
        elif stage.kind in ("chosen", "taught") and data.unpaired is not None:
            choice = self._choose(by, data.unpaired)
            self._run.choices.append(choice)
            data = with_choice(data, data.unpaired, choice, self._config.unpaired_weight)
        teachers = by if stage.kind == "taught" else ()
        self._trainer = Trainer(towers, data, self._config, teachers)

    @cached_property
    def _kept(self) -> CaptionData:
        """The data without the pairs that the sieve leaves out."""
        with torch.random.fork_rng():
            sifted = self.sieve.sift(self._finished[: self._first])
        self._run.sifted = sifted
        return self._data if sifted is None else replace(self._data, train=sifted.units())

    def _choose(self, by: Sequence[Towers], unpaired: Unpaired) -> Choice:
        """Choose pairs by the rule; the similarities of the towers are averaged."""
        rng = np.random.default_rng([self._run.seed, len(self._finished)])
        if self._config.unpaired == "policy":
            held_out = _part(self._kept.train, held_out=True)
            scout = self._finished[self._first]
            return policy_choice(by, scout, held_out, unpaired, self._config, rng)
        return choose(Embedded.of(by, unpaired), self._config, rng)

    def _linear(self, units: Units) -> Towers:
        """Return the towers of units before training."""
        towers = self._initial()
        self._start(towers, units, np.random.default_rng(self._run.seed))
        return towers.to(device()).eval()

    def _start(self, towers: Towers, units: Units, rng: np.random.Generator) -> None:
        frames = self._config.frames(self._data.bits)
        start_from_linear_models(towers, units, self._data.raw_images, rng, frames)

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
    return replace(data, train=train, weights=weights, given=len(data.train))


def _part(units: Units, *, held_out: bool) -> Units:
    """Return every fourth unit, or the others."""
    rows = np.arange(len(units))
    return units.take(rows[(rows % HELD_OUT_EVERY == 0) == held_out])

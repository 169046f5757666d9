"""Trials of the contrastive method whose codes shall keep more of the float outputs.

A trial is a training with settings of the method, or with another loss of the relaxed codes that
the method does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from xmodal.encoders.towers import Towers
from xmodal.training import losses
from xmodal.training.methods.contrastive.batches import Batch
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.initial import start_from_linear_models
from xmodal.training.methods.contrastive.losses import caption_contrast
from xmodal.training.methods.contrastive.train import CaptionRun
from xmodal.training.methods.contrastive.trainer import CaptionData, Trainer, width_shares

ITQ = 0
"""Directions of a start that is rotated by ITQ."""
Compared = Literal["method", "signs", "outputs and signs", "all"]
"""Codes in the contrast: those of the method, or signs, whose gradient is that of the value
(straight-through), of both sides, of one side in turn, or the mean of all these."""


@dataclass(frozen=True)
class Trial:
    """A training of the contrastive method with ``settings`` and, beside them, with other losses.

    ``directions``: of the frame that the codes begin with; ITQ: as many as bits, rotated by ITQ;
    None: those of the method. ``prefix_power``: see ``PREFIX_POWER`` of the method; None: that.
    ``decorrelate``: weight of the penalty on correlated bits. ``noise``: standard deviation of
    noise that is added to outputs in training. ``untrained``: the linear model that training begins
    with is measured.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    directions: int | None = None
    prefix_power: float | None = None
    compared: Compared = "method"
    decorrelate: float = 0.0
    noise: float = 0.0
    untrained: bool = False

    def frames(self, config: Config, bits: int) -> list[tuple[int, int]]:
        """Return bits and directions of the frames that the codes begin with; empty for ITQ."""
        if self.directions is None:
            return config.frames(bits)
        return [(bits, self.directions)] if self.directions else []


def fit(data: CaptionData, trial: Trial, config: Config, seed: int) -> Towers:
    """Train towers on pairs, as the method does, without validation."""
    run = CaptionRun(data, seed=seed)
    with torch.random.fork_rng():
        rng = run.rng(0)
        image, text = data.train.image.shape[1], data.train.text.shape[1]
        towers = Towers(
            image, text, data.bits, hidden=config.hidden, dropout=config.dropout, kind="residual"
        )
        trainer = TrialTrainer(towers, data, config)
        trainer.trial = trial
        if trial.prefix_power is not None:
            trainer.shares = width_shares(list(trainer.shares), trial.prefix_power)
        frames = trial.frames(config, data.bits)
        start_from_linear_models(towers, data.train, False, rng, frames)
        for epoch in range(1, 1 if trial.untrained else config.epochs + 1):
            for _ in trainer.epoch(epoch, run.rng(epoch)):
                pass
    return towers.eval()


class TrialTrainer(Trainer):
    """A training whose losses are those of a trial."""

    trial: Trial

    def contrast(self, u: torch.Tensor, v: torch.Tensor, batch: Batch, *_: Any) -> torch.Tensor:
        """The contrast of the trial, of pairs with equal weights."""
        if self.trial.noise:
            u, v = (
                torch.tanh(_outputs(x) + self.trial.noise * torch.randn_like(x)) for x in (u, v)
            )
        pairs = COMPARED[self.trial.compared](u, v)
        terms = [caption_contrast(*one, self.config.temperature, batch.equal) for one in pairs]
        contrast = torch.stack(terms).mean()
        if self.trial.decorrelate:
            penalty = losses.decorrelation(u) + losses.decorrelation(v)
            contrast = contrast + self.trial.decorrelate * penalty
        return contrast


def _outputs(relaxed: torch.Tensor) -> torch.Tensor:
    return torch.atanh(relaxed.clamp(-0.9999, 0.9999))


def _signs(relaxed: torch.Tensor) -> torch.Tensor:
    """Signs with the gradient of the relaxed values."""
    signs = torch.where(relaxed > 0, 1.0, -1.0)
    return relaxed + (signs - relaxed).detach()


Codes = tuple[torch.Tensor, torch.Tensor]
COMPARED: dict[Compared, Callable[[torch.Tensor, torch.Tensor], list[Codes]]] = {
    "method": lambda u, v: [(u, v)],
    "signs": lambda u, v: [(_signs(u), _signs(v))],
    "outputs and signs": lambda u, v: [(u, _signs(v)), (_signs(u), v)],
    "all": lambda u, v: [(u, v), (_signs(u), _signs(v)), (u, _signs(v)), (_signs(u), v)],
}

"""The state that every training run shares: seeds, validation, history, best epoch, checkpoint.

A method iterates over :meth:`Run.epochs` and calls :meth:`Run.end_of_epoch`. All randomness of an
epoch is derived from (seed, epoch), so a run that was stopped and continued gives the same codes as
an uninterrupted run.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from xmodal.encoders.folder import HISTORY
from xmodal.encoders.towers import Kind, Towers
from xmodal.errors import DataError
from xmodal.training.checkpoint import Checkpoint, Stateful
from xmodal.training.pairs import TrainingPairs
from xmodal.training.sheets import save_sheet
from xmodal.training.validation import validation_map
from xmodal.writing import write_text


@dataclass(frozen=True)
class TrainingData:
    """The input of a method: training and validation pairs, and the width of the codes.

    ``raw_images``: the image features are pixels, (n, 64 * 64 * 3) uint8.
    """

    train: TrainingPairs
    validation: TrainingPairs
    bits: int
    raw_images: bool = False

    @property
    def classes(self) -> int:
        """Number of label columns."""
        return self.train.labels.shape[1]

    def towers(self, hidden: int, dropout: float = 0.0, kind: Kind = "practical") -> Towers:
        """Return untrained towers for these features and this code width."""
        return Towers(
            self.train.image.shape[1],
            self.train.text.shape[1],
            self.bits,
            hidden=hidden,
            raw_images=self.raw_images,
            dropout=dropout,
            kind=kind,
        )


EpochShown = Callable[[int, int, Mapping[str, float]], None]
"""Callback after each epoch: epoch, number of epochs, figures (losses, validation, seconds)."""


def learning_rate_factor(epoch: int, epochs: int) -> float:
    """Factor of the learning rate: two epochs of warm-up, then a cosine from 1 to 0.1."""
    if epoch <= 2:
        return epoch / 3
    part = (epoch - 2) / max(1, epochs - 2)
    return float(0.1 + 0.45 * (1 + np.cos(np.pi * min(1.0, part))))


@dataclass
class Run:
    """One training run. History and checkpoint are written to ``folder`` if there is one.

    ``identity``: a hash of data, method and settings; a checkpoint of another identity is refused.
    ``patience``: number of epochs without a better validation score after which the run ends.
    ``show``: callback after each epoch.
    """

    data: TrainingData
    seed: int = 0
    folder: Path | None = None
    identity: str = ""
    patience: int = 10
    show: EpochShown | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = -1.0
    best_epoch: int = 0
    _best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    _state: Mapping[str, Stateful] = field(default_factory=dict)
    _logged: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _epochs: int = 0
    _started: float = 0.0

    def rng(self, epoch: int) -> np.random.Generator:
        """Seed torch and return the generator of an epoch; epoch 0 is the initialisation."""
        torch.manual_seed(self.seed * 1_000_003 + epoch)
        return np.random.default_rng([self.seed, epoch])

    def epochs(
        self, count: int, state: Mapping[str, Stateful], *, patience_from: int = 0
    ) -> Iterator[int]:
        """Yield the epochs 1..count, or the remaining ones of a stopped run.

        ``state`` is saved in the checkpoint and restored from it. Patience is counted from
        ``patience_from``, the last epoch of pretraining for example, or from the best epoch.
        """
        self._epochs, self._state = count, state
        first = self._restore() + 1
        for epoch in range(first, count + 1):
            if epoch > max(self.best_epoch, patience_from) + self.patience and self.history:
                return
            self._started = time.perf_counter()
            yield epoch

    def log(self, figures: Mapping[str, float]) -> None:
        """Add the figures of a step; their means are the figures of the epoch."""
        for name, value in figures.items():
            self._logged[name].append(value)

    def end_of_epoch(self, epoch: int, towers: Towers) -> None:
        """Validate, keep the best towers, save. Raises DataError for a loss that is not finite."""
        losses = {name: float(np.mean(values)) for name, values in self._logged.items()}
        self._logged.clear()
        wrong = [name for name, value in losses.items() if not np.isfinite(value)]
        if wrong:
            raise DataError(
                f"{wrong[0]} is {losses[wrong[0]]} in epoch {epoch}: lower the learning rate "
                "(--set learning_rate=...), or check the features"
            )
        measured = self.validate(towers)
        seconds = time.perf_counter() - self._started
        figures = {"epoch": epoch, **losses, **measured, "seconds": seconds}
        self.history.append(figures)
        if self.is_better(measured):
            score = float(np.mean(list(measured.values()))) if measured else self.best
            self.best, self.best_epoch = score, epoch
            self._best_state = {k: v.detach().clone() for k, v in towers.state_dict().items()}
        self._save(epoch)
        if self.show:
            self.show(epoch, self._epochs, figures)

    def finish(self, towers: Towers) -> Towers:
        """Return the towers of the best epoch, in evaluation mode."""
        if self._best_state:
            towers.load_state_dict(self._best_state)
        return towers.eval()

    def validate(self, towers: Towers) -> dict[str, float]:
        """Return the validation figures; the epoch with the largest mean of them is kept.

        Without validation pairs there are no figures, and the last epoch is kept.
        """
        return validation_map(towers, self.data.validation, self.data.train)

    def is_better(self, figures: Mapping[str, float]) -> bool:
        """Whether an epoch with these validation figures is the best one so far."""
        return not figures or float(np.mean(list(figures.values()))) > self.best

    def sheet(self, name: str, epoch: int, rows: Sequence[npt.NDArray[np.uint8]]) -> None:
        """Save a sheet of pictures, see :func:`save_sheet`, if the run has a folder."""
        if self.folder is not None:
            save_sheet(self.folder, name, epoch, rows)

    def write_history(self, folder: Path) -> None:
        """Write ``history.jsonl``: one JSON object an epoch."""
        lines = [json.dumps({k: round(v, 6) for k, v in row.items()}) for row in self.history]
        write_text(folder / HISTORY, "\n".join(lines) + "\n")

    def _save(self, epoch: int) -> None:
        if self.folder is not None:
            state = {name: one.state_dict() for name, one in self._state.items()}
            Checkpoint(
                self.identity,
                epoch,
                self.best,
                self.best_epoch,
                self._best_state,
                self.history,
                state,
            ).write(self.folder)

    def _restore(self) -> int:
        """Load the checkpoint, if there is one; return the last finished epoch."""
        saved = Checkpoint.read(self.folder, self.identity) if self.folder else None
        if saved is None:
            return 0
        saved.restore(self._state)
        self.best, self.best_epoch = saved.best, saved.best_epoch
        self._best_state, self.history = saved.best_state, saved.history
        return saved.epoch

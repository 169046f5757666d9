"""What every training run shares: seeds, validation, history, the best checkpoint, going on.

A method iterates over :meth:`Run.epochs` and calls :meth:`Run.end_of_epoch`; everything random in
an epoch comes from (seed, epoch), so a run that was stopped and goes on ends in the same codes as
one that was not.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from xmodal.encoder import CHECKPOINT, HISTORY
from xmodal.errors import ConfigError, DataError
from xmodal.gallery import write_sheet
from xmodal.metrics import average_precision, groups_by_codes, mean, shared_labels
from xmodal.towers import Kind, Towers
from xmodal.training.pairs import Pairs, even_choice

SHEET = re.compile(r"[a-z]+-\d{3,}\.png")
"""The name of a sheet of pictures that a method leaves: synthetic-010.png."""
DATABASE = 2000  # training pairs that validation searches in
ENOUGH_LABELS = 20  # labelled validation pairs that are worth measuring by


@dataclass(frozen=True)
class TrainingData:
    """What a method learns from and is chosen by. ``raw_images``: image features are pixels."""

    train: Pairs
    validation: Pairs
    bits: int
    raw_images: bool = False

    @property
    def classes(self) -> int:
        """Number of label columns."""
        return self.train.labels.shape[1]

    def towers(self, hidden: int, dropout: float = 0.0, kind: Kind = "practical") -> Towers:
        """Fresh towers of the right shape."""
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
"""Whoever shows training: epoch, of how many; its losses, validation figures and seconds."""


def schedule(epoch: int, epochs: int) -> float:
    """Share of the learning rate in an epoch: two to warm up, then a cosine down to a tenth."""
    if epoch <= 2:
        return epoch / 3
    part = (epoch - 2) / max(1, epochs - 2)
    return float(0.1 + 0.45 * (1 + np.cos(np.pi * min(1.0, part))))


class Stateful(Protocol):
    """A module or an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while training."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Go back to a saved state."""


@dataclass
class Run:
    """One training run. ``folder`` keeps history and checkpoint; without one, nothing is kept.

    ``identity`` says what the run is (data, method, settings): a checkpoint of another run is
    refused. ``patience``: epochs without a better validation before the run ends.
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
    _noted: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _epochs: int = 0
    _started: float = 0.0

    def rng(self, epoch: int) -> np.random.Generator:
        """The randomness of an epoch (0: before the first); torch's follows it."""
        torch.manual_seed(self.seed * 1_000_003 + epoch)
        return np.random.default_rng([self.seed, epoch])

    def epochs(self, count: int, state: Mapping[str, Stateful], *, sure: int = 0) -> Iterator[int]:
        """Epochs 1..count, or the rest of them after a stop; ``state`` is saved and restored.

        Patience counts from epoch ``sure`` at the earliest: that of pretraining, say.
        """
        self._epochs, self._state = count, state
        first = self._restore() + 1
        for epoch in range(first, count + 1):
            if epoch > max(self.best_epoch, sure) + self.patience and self.history:
                return
            self._started = time.perf_counter()
            yield epoch

    def note(self, figures: Mapping[str, float]) -> None:
        """Losses and other figures of a step; their means become the epoch's."""
        for name, value in figures.items():
            self._noted[name].append(value)

    def end_of_epoch(self, epoch: int, towers: Towers) -> None:
        """Validate, keep the best towers, save. Raises DataError for a loss that is NaN."""
        losses = {name: float(np.mean(values)) for name, values in self._noted.items()}
        self._noted.clear()
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
        score = float(np.mean(list(measured.values()))) if measured else self.best
        if score > self.best or not measured:
            self.best, self.best_epoch = score, epoch
            self._best_state = {k: v.detach().clone() for k, v in towers.state_dict().items()}
        self._save(epoch)
        if self.show:
            self.show(epoch, self._epochs, figures)

    def finish(self, towers: Towers) -> Towers:
        """The towers of the best epoch, in evaluation mode."""
        if self._best_state:
            towers.load_state_dict(self._best_state)
        return towers.eval()

    def validate(self, towers: Towers) -> dict[str, float]:
        """Expected mAP of validation pairs with their binary codes, mean of both directions.

        ``pair mAP``: each searches the other halves for its own. ``mAP``: they search training
        pairs for those that share a label (only where enough pairs are labelled). The best epoch
        has the largest mean of both: codes should find the kind, and among it the one. Without
        validation pairs there is no figure, and each epoch is better than the one before.
        """
        if not len(self.data.validation):
            return {}
        queries, train = self.data.validation, self.data.train
        database = train.take(even_choice(len(train), DATABASE))
        own = np.eye(len(queries), dtype=np.bool_)
        figures = {"pair mAP": _map(towers, queries, queries, own)}
        if min(int(queries.labelled.sum()), int(database.labelled.sum())) >= ENOUGH_LABELS:
            queries, database = _labelled(queries), _labelled(database)
            shared = shared_labels(queries.labels.cpu().numpy(), database.labels.cpu().numpy())
            figures["mAP"] = _map(towers, queries, database, shared > 0)
        return figures

    def sheet(self, name: str, epoch: int, rows: Sequence[npt.NDArray[np.uint8]]) -> None:
        """Draw small pictures, each of ``rows`` (m, side, side, 3), as NAME-EPOCH.png."""
        if self.folder is not None:
            write_sheet(self.folder / f"{name}-{epoch:03}.png", rows, f"{name}, epoch {epoch}")

    # ---- stopping and going on ---------------------------------------------------------------

    def _save(self, epoch: int) -> None:
        if self.folder is None:
            return
        saved = {
            "identity": self.identity,
            "epoch": epoch,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_state": self._best_state,
            "history": self.history,
            "state": {name: one.state_dict() for name, one in self._state.items()},
        }
        new = self.folder / f"{CHECKPOINT}.new"
        torch.save(saved, new)
        os.replace(new, self.folder / CHECKPOINT)

    def _restore(self) -> int:
        """Load the checkpoint, if there is one; return the last finished epoch."""
        path = self.folder / CHECKPOINT if self.folder else None
        if path is None or not path.exists():
            return 0
        try:
            saved = torch.load(path, weights_only=True)
        except Exception as error:  # a damaged file ends in any of many errors
            reason = " ".join(str(error).split())[:100]
            raise ConfigError(
                f"{path} cannot be read ({reason}): start over with --restart"
            ) from None
        if saved["identity"] != self.identity:
            raise ConfigError(
                f"{self.folder} holds a stopped run with other data or settings: repeat it as it "
                "was, name another --out, or start over with --restart"
            )
        for name, one in self._state.items():
            one.load_state_dict(saved["state"][name])
        self.best, self.best_epoch = saved["best"], saved["best_epoch"]
        self._best_state, self.history = saved["best_state"], saved["history"]
        return int(saved["epoch"])

    def write_history(self, folder: Path) -> None:
        """One JSON object an epoch."""
        lines = [json.dumps({k: round(v, 6) for k, v in row.items()}) for row in self.history]
        (folder / HISTORY).write_text("\n".join(lines) + "\n")


def _map(
    towers: Towers, queries: Pairs, database: Pairs, relevance: npt.NDArray[np.bool_]
) -> float:
    """Expected mAP, mean of both directions; ``relevance`` (queries, database)."""
    ways = (
        (towers.codes("image", queries.image), towers.codes("text", database.text)),
        (towers.codes("text", queries.text), towers.codes("image", database.image)),
    )
    values = [mean(average_precision(groups_by_codes(ask, to, relevance))) for ask, to in ways]
    return float(np.mean(values))


def _labelled(pairs: Pairs) -> Pairs:
    return pairs.take(pairs.labelled.nonzero().flatten())

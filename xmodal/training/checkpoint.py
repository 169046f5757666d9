"""The checkpoint of a training run: everything that a stopped run needs to continue."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from xmodal.encoders.folder import CHECKPOINT, RunFolder
from xmodal.errors import ConfigError
from xmodal.writing import atomic_write


class Stateful(Protocol):
    """A module or an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training changes."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restore a state."""


@dataclass(frozen=True)
class Checkpoint:
    """State of a run after ``epoch``.

    ``identity`` is a hash of data, options and settings. ``best_state`` holds the towers of
    ``best_epoch``, whose validation score is ``best``. ``state`` holds the modules and optimisers.
    """

    identity: str
    epoch: int
    best: float
    best_epoch: int
    best_state: dict[str, torch.Tensor]
    history: list[dict[str, float]]
    state: dict[str, dict[str, Any]]

    def write(self, folder: Path) -> None:
        """Write the file; after a kill at any moment the folder holds the old or the new one."""
        with atomic_write(folder / CHECKPOINT) as file:
            torch.save(vars(self), file)

    @classmethod
    def read(cls, folder: Path, identity: str) -> Checkpoint | None:
        """Return the checkpoint in ``folder``, None if there is none.

        Raises ConfigError for a damaged file and for a checkpoint of another ``identity``.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            return None
        try:
            _check_members(path)
            saved = cls(**torch.load(path, weights_only=True))
        except Exception as error:  # torch.load raises many types for a damaged file
            reason = " ".join(str(error).split())[:100]
            raise ConfigError(
                f"{path} cannot be read ({reason}): start over with --restart"
            ) from None
        if saved.identity != identity:
            raise ConfigError(
                f"{folder} holds a stopped run with other data or settings, or of another version: "
                "repeat the same command, name another --out, or start over with --restart"
            )
        return saved

    def restore(self, networks: Mapping[str, Stateful]) -> None:
        """Load the saved state into modules and optimisers of the same names."""
        for name, network in networks.items():
            network.load_state_dict(self.state[name])


def _check_members(path: Path) -> None:
    """Raise BadZipFile if a part of the file has another CRC-32, which torch does not compare."""
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} does not match its checksum")


def continue_or_clear(run: RunFolder, identity: str) -> None:
    """Clear the work folder of a restart unless a stopped restart of ``identity`` is continued."""
    if run.work is None or not run.is_restart:
        return
    try:
        saved = Checkpoint.read(run.work, identity)
    except ConfigError:
        saved = None
    if saved is None:
        run.clear()

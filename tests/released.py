"""Small settings of SCH-GAN's faithful mode, and its players in front of data."""

from __future__ import annotations

from typing import Any

import torch

from xmodal.towers import Towers
from xmodal.training.methods.schgan_paper import networks as paper_players
from xmodal.training.methods.schgan_paper import train as paper
from xmodal.training.methods.schgan_paper.train import Config
from xmodal.training.run import TrainingData

SMALL: dict[str, Any] = {
    "hidden": 64,
    "epochs": 2,
    "pretraining": 1,
    "queries_per_step": 40,
    "query_share": 1.0,
}
QUICK = Config(**SMALL)


def players(data: TrainingData, config: Config) -> paper.Players:
    """Both players as a run of seed 0 starts them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return paper_players.face_to_face(data, config)


def weights(towers: Towers) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in towers.state_dict().values()])

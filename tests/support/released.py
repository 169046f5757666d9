"""Small settings of the released SCH-GAN, and its networks with a fixed seed."""

from __future__ import annotations

from typing import Any

import torch

from xmodal.encoders.towers import Towers
from xmodal.training.methods.schgan_paper.config import Config
from xmodal.training.methods.schgan_paper.networks import Networks, build_networks
from xmodal.training.run import TrainingData

SMALL: dict[str, Any] = {
    "hidden": 64,
    "epochs": 2,
    "pretraining": 1,
    "queries_per_step": 40,
    "query_share": 1.0,
}
QUICK = Config(**SMALL)


def networks(data: TrainingData, config: Config) -> Networks:
    """Both networks as a run of seed 0 initialises them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_networks(data, config)


def weights(towers: Towers) -> torch.Tensor:
    """All parameters in one vector."""
    return torch.cat([weight.detach().flatten() for weight in towers.state_dict().values()])

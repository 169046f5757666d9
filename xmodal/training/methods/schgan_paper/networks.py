"""Both players of the faithful mode in front of their data, and what they look at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from xmodal.device import device
from xmodal.index import MODALITIES, Modality
from xmodal.towers import ReleasedTower, Towers, released_start
from xmodal.training import pairs as sampling
from xmodal.training.methods.schgan_paper import losses as terms
from xmodal.training.methods.schgan_paper.config import Config
from xmodal.training.pairs import Pairs
from xmodal.training.run import TrainingData

OTHER: dict[Modality, Modality] = {"image": "text", "text": "image"}


class Generator(nn.Module):
    """Towers of its own, and class logits W3 u + b3 on the hidden units of each."""

    def __init__(self, towers: Towers, classes: int) -> None:
        super().__init__()
        self.towers = towers
        hidden, sides = towers.shape["hidden"], MODALITIES if classes else ()
        self.heads = nn.ModuleDict({side: nn.Linear(hidden, classes) for side in sides})
        for head in self.heads.values():
            released_start(head)

    def class_logits(self, side: Modality, units: torch.Tensor) -> torch.Tensor:
        """Of hidden units (n, hidden), (n, c)."""
        if not self.heads:
            return units.new_zeros(len(units), 0)
        out: torch.Tensor = self.heads[side](units)
        return out


@dataclass
class Players:
    """Both players in front of the training pairs."""

    pairs: Pairs
    d: Towers
    g: Generator
    d_steps: torch.optim.Optimizer
    g_steps: torch.optim.Optimizer
    config: Config

    @property
    def known(self) -> torch.Tensor:
        """Rows of the labelled pairs, or of all if there are none: queries, and their x+."""
        rows = self.pairs.labelled.nonzero().flatten()
        return rows if len(rows) else torch.arange(len(self.pairs), device=rows.device)

    def features(self, side: Modality) -> torch.Tensor:
        """Those of all training pairs, (n, dim)."""
        return self.pairs.image if side == "image" else self.pairs.text

    def matches(self, rows: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """Which candidates are known matches of the queries, (q, m) bool."""
        usable = self.pairs.labels * self.pairs.labelled[:, None]
        return (usable[rows] @ usable[candidates].T > 0) | (rows[:, None] == candidates[None, :])


def face_to_face(data: TrainingData, config: Config) -> Players:
    """Both players as they start."""
    d, towers = (data.towers(config.hidden, kind="released").to(device()) for _ in range(2))
    g = Generator(towers, data.classes).to(device())
    d_steps, g_steps = (
        torch.optim.SGD(one.parameters(), lr=1.0, weight_decay=config.weight_decay)
        for one in (d, g)
    )
    players = Players(data.train.to(device()), d, g, d_steps, g_steps, config)
    if config.start == "scaled":
        _scale_start(players)
    return players


@torch.no_grad()
def _scale_start(players: Players) -> None:
    """Give the inputs of every tanh and sigmoid mean 0 and spread 1 over training features."""
    n = len(players.pairs)
    rows = sampling.even_choice(n, 2000).to(players.known.device)
    for towers, heads in ((players.d, None), (players.g.towers, players.g.heads)):
        for side in MODALITIES:
            tower = tower_of(towers, side)
            inputs = tower.vectors(players.features(side)[rows])
            _scale(tower.head[0], inputs)
            units = tower.units(inputs)
            _scale(tower.head[2], units)
            if heads:
                _scale(heads[side], units)


def _scale(layer: nn.Module, inputs: torch.Tensor) -> None:
    """Scale and centre what a linear layer makes of ``inputs``, output by output."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    std = (inputs @ weight.T).std(0, correction=0)
    weight.mul_(torch.where(std > 1e-6, 1 / std, 1.0)[:, None])
    bias.copy_(-(inputs @ weight.T).mean(0))


# ---- what they look at -----------------------------------------------------------------------


def asked(
    players: Players, rng: np.random.Generator
) -> Iterator[tuple[Modality, torch.Tensor, torch.Tensor]]:
    """The steps of a pass: who asks, the queries' rows, their pool; directions alternate."""
    n, config = len(players.pairs), players.config
    size = min(n, max(round(config.candidate_share * n), config.picks + config.random_negatives))
    known = players.known
    for part in used(sampling.batches(len(known), config.queries_per_step, rng), config):
        for way in MODALITIES:
            pool = torch.from_numpy(rng.choice(n, size, replace=False))
            yield way, known[part], pool.to(known.device)


def used(parts: Iterator[torch.Tensor], config: Config) -> list[torch.Tensor]:
    """The batches that a pass uses: ``config.query_share`` of them."""
    every = list(parts)
    return every[: math.ceil(config.query_share * len(every))]


def positives(players: Players, rows: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A random labelled match of each query, (q,)."""
    return players.known[sampling.one_match(players.matches(rows, players.known), rng)]


def weights(
    players: Players, rows: torch.Tensor, pool: torch.Tensor, belief: torch.Tensor
) -> torch.Tensor:
    """How surely candidates are negatives of the queries, (q, m): 0 for known matches.

    Where one of both is not labelled: 1 - sum_c belief_i(c) belief_j(c), or, as released, 1.
    """
    weight = (~players.matches(rows, pool)).float()
    if players.config.false_negatives == "ignored":
        return weight
    labelled = players.pairs.labelled
    both = labelled[rows][:, None] & labelled[pool][None, :]
    return torch.where(both, weight, weight * (1 - belief[rows] @ belief[pool].T).clamp(0, 1))


@torch.no_grad()
def all_beliefs(players: Players) -> torch.Tensor:
    """How training pairs divide among classes, by labels or by the generator, (n, c)."""
    pairs = players.pairs
    if bool(pairs.labelled.all()) or players.config.false_negatives == "ignored":
        return pairs.labels
    return class_beliefs(players.g, pairs)


@torch.no_grad()
def class_beliefs(g: Generator, pairs: Pairs, hidden: bool = False) -> torch.Tensor:
    """Beliefs of pairs, (n, c); ``hidden``: as if nobody had labelled them."""

    def logits(side: Modality, features: torch.Tensor) -> torch.Tensor:
        tower = tower_of(g.towers, side)
        return torch.cat([g.class_logits(side, tower.units(x)) for x in features.split(1024)])

    both = (logits("image", pairs.image) + logits("text", pairs.text)) / 2
    known = torch.zeros_like(pairs.labelled) if hidden else pairs.labelled
    return terms.beliefs(pairs.labels, known, both)


@torch.no_grad()
def all_codes(players: Players, towers: Towers) -> dict[Modality, torch.Tensor]:
    """Relaxed codes of all training pairs, (n, K) each side."""
    return {
        side: torch.cat([tower_of(towers, side)(x) for x in players.features(side).split(1024)])
        for side in MODALITIES
    }


def codes_of(
    towers: Towers, way: Modality, players: Players, rows: torch.Tensor, items: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes of queries (q, K), codes of items of the other side (m, K), and the items' units."""
    ask, answer = tower_of(towers, way), tower_of(towers, OTHER[way])
    units = answer.units(players.features(OTHER[way])[items])
    return ask(players.features(way)[rows]), answer.codes(units), units


def tower_of(towers: Towers, side: Modality) -> ReleasedTower:
    """The tower of one modality, which is a released one here."""
    tower = towers.tower(side)
    assert isinstance(tower, ReleasedTower)
    return tower

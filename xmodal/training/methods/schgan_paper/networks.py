"""The networks of the released SCH-GAN, and the queries, pools and class shares of a pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from xmodal.device import device
from xmodal.encoders.towers import ReleasedTower, Towers, init_released
from xmodal.modality import MODALITIES, Modality
from xmodal.training.methods.schgan_paper import losses as terms
from xmodal.training.methods.schgan_paper.config import Config
from xmodal.training.pairs import Pairs, batches, even_choice, sample_match
from xmodal.training.run import TrainingData

MAX_PAIRS = 50_000
"""Pairs, evenly chosen, that are trained on: a query has all of them as possible matches."""
OTHER: dict[Modality, Modality] = {"image": "text", "text": "image"}


class Generator(nn.Module):
    """Towers of the generator, and class logits W3 u + b3 of their hidden units."""

    def __init__(self, towers: Towers, classes: int) -> None:
        super().__init__()
        self.towers = towers
        hidden, heads = towers.shape["hidden"], MODALITIES if classes else ()
        self.heads = nn.ModuleDict({modality: nn.Linear(hidden, classes) for modality in heads})
        for head in self.heads.values():
            init_released(head)

    def class_logits(self, modality: Modality, units: torch.Tensor) -> torch.Tensor:
        """Hidden units (n, hidden) -> class logits (n, c)."""
        if not self.heads:
            return units.new_zeros(len(units), 0)
        out: torch.Tensor = self.heads[modality](units)
        return out


@dataclass
class Networks:
    """Training pairs, discriminator ``d``, generator ``g`` and their optimisers."""

    pairs: Pairs
    d: Towers
    g: Generator
    d_optimiser: torch.optim.Optimizer
    g_optimiser: torch.optim.Optimizer
    config: Config

    @property
    def known(self) -> torch.Tensor:
        """Rows of the labelled pairs, of all if none is labelled: the queries and their x+."""
        rows = self.pairs.labelled.nonzero().flatten()
        return rows if len(rows) else torch.arange(len(self.pairs), device=rows.device)

    def features(self, modality: Modality) -> torch.Tensor:
        """Features of one modality of all training pairs, (n, dim)."""
        return self.pairs.image if modality == "image" else self.pairs.text

    def matches(self, rows: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """Known matches of the queries among the candidates, (q, m) bool."""
        usable = self.pairs.labels * self.pairs.labelled[:, None]
        return (usable[rows] @ usable[candidates].T > 0) | (rows[:, None] == candidates[None, :])


def build_networks(data: TrainingData, config: Config) -> Networks:
    """Return both networks, initialised by ``config.start``."""
    d, towers = (data.towers(config.hidden, kind="released").to(device()) for _ in range(2))
    g = Generator(towers, data.classes).to(device())
    d_optimiser, g_optimiser = (
        torch.optim.SGD(one.parameters(), lr=1.0, weight_decay=config.weight_decay)
        for one in (d, g)
    )
    pairs = data.train.take(even_choice(len(data.train), MAX_PAIRS)).to(device())
    networks = Networks(pairs, d, g, d_optimiser, g_optimiser, config)
    if config.start == "scaled":
        _scale_start(networks)
    return networks


@torch.no_grad()
def _scale_start(networks: Networks) -> None:
    """Rescale layers: inputs of tanh and sigmoid get mean 0 and deviation 1 on training data."""
    n = len(networks.pairs)
    rows = even_choice(n, 2000).to(networks.known.device)
    for towers, heads in ((networks.d, None), (networks.g.towers, networks.g.heads)):
        for modality in MODALITIES:
            tower = tower_of(towers, modality)
            inputs = tower.vectors(networks.features(modality)[rows])
            _scale(tower.head[0], inputs)
            units = tower.units(inputs)
            _scale(tower.head[2], units)
            if heads:
                _scale(heads[modality], units)


def _scale(layer: nn.Module, inputs: torch.Tensor) -> None:
    """Scale and centre each output of a linear layer over ``inputs``."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    std = (inputs @ weight.T).std(0, correction=0)
    weight.mul_(torch.where(std > 1e-6, 1 / std, 1.0)[:, None])
    bias.copy_(-(inputs @ weight.T).mean(0))


# ---- queries, pools and class shares ---------------------------------------------------------


def query_batches(
    networks: Networks, rng: np.random.Generator
) -> Iterator[tuple[Modality, torch.Tensor, torch.Tensor]]:
    """Yield for each step the modality of the queries, their rows and the rows of their pool."""
    n, config = len(networks.pairs), networks.config
    size = min(n, max(round(config.candidate_share * n), config.picks + config.random_negatives))
    known = networks.known
    for part in used_batches(batches(len(known), config.queries_per_step, rng), config):
        for modality in MODALITIES:
            pool = torch.from_numpy(rng.choice(n, size, replace=False))
            yield modality, known[part], pool.to(known.device)


def used_batches(parts: Iterator[torch.Tensor], config: Config) -> list[torch.Tensor]:
    """Return the first ``config.query_share`` of the batches."""
    every = list(parts)
    return every[: math.ceil(config.query_share * len(every))]


def sample_positives(
    networks: Networks, rows: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """Sample a labelled match of each query, (q,)."""
    return networks.known[sample_match(networks.matches(rows, networks.known), rng)]


def negative_weights(
    networks: Networks, rows: torch.Tensor, pool: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """Probability that a candidate is a negative of a query, (q, m): 0 for known matches.

    Where one of both is not labelled: 1 - sum_c s_i(c) s_j(c) with class shares s; as released, 1.
    """
    weight = (~networks.matches(rows, pool)).float()
    if networks.config.false_negatives == "ignored":
        return weight
    labelled = networks.pairs.labelled
    both = labelled[rows][:, None] & labelled[pool][None, :]
    return torch.where(both, weight, weight * (1 - shares[rows] @ shares[pool].T).clamp(0, 1))


@torch.no_grad()
def class_shares_of_training(networks: Networks) -> torch.Tensor:
    """Class shares of the training pairs, from labels or the generator, (n, c)."""
    pairs = networks.pairs
    if bool(pairs.labelled.all()) or networks.config.false_negatives == "ignored":
        return pairs.labels
    return predict_class_shares(networks.g, pairs)


@torch.no_grad()
def predict_class_shares(g: Generator, pairs: Pairs, hidden: bool = False) -> torch.Tensor:
    """Class shares of pairs, (n, c); ``hidden``: labels are not used."""

    def logits(modality: Modality, features: torch.Tensor) -> torch.Tensor:
        tower = tower_of(g.towers, modality)
        return torch.cat([g.class_logits(modality, tower.units(x)) for x in features.split(1024)])

    both = (logits("image", pairs.image) + logits("text", pairs.text)) / 2
    known = torch.zeros_like(pairs.labelled) if hidden else pairs.labelled
    return terms.class_shares(pairs.labels, known, both)


@torch.no_grad()
def all_codes(networks: Networks, towers: Towers) -> dict[Modality, torch.Tensor]:
    """Relaxed codes of all training pairs, (n, K) of each modality."""
    return {
        modality: torch.cat(
            [tower_of(towers, modality)(x) for x in networks.features(modality).split(1024)]
        )
        for modality in MODALITIES
    }


def query_and_item_codes(
    towers: Towers, modality: Modality, networks: Networks, rows: torch.Tensor, items: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes of queries (q, K) and of items of the other modality (m, K), and the items' units."""
    query_tower, item_tower = tower_of(towers, modality), tower_of(towers, OTHER[modality])
    units = item_tower.units(networks.features(OTHER[modality])[items])
    return query_tower(networks.features(modality)[rows]), item_tower.codes(units), units


def tower_of(towers: Towers, modality: Modality) -> ReleasedTower:
    """Return the tower of one modality, a released one."""
    tower = towers.tower(modality)
    assert isinstance(tower, ReleasedTower)
    return tower

"""Fine-tuning: the last blocks of the backbones are trained with the towers, from the first step.

The towers begin as linear models of the features. Features are computed in each step from the
states in front of the blocks, and captions are not mixed; pictures and captions of a side without
trained blocks keep their features.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from xmodal.device import device
from xmodal.encoders.towers import Towers
from xmodal.features.rows import FeatureRows, Int64
from xmodal.features.states import Sides, current_features
from xmodal.features.units import Units
from xmodal.modality import Modality
from xmodal.training.methods.contrastive.batches import Sampler
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.trainer import CaptionData, Trainer
from xmodal.training.objective import HashNetwork
from xmodal.training.pairs import even_choice
from xmodal.training.prototypes import ClassPrototypes
from xmodal.training.validation import MAX_UNITS


class TunedNetwork(HashNetwork):
    """The towers, the prototypes and the trained blocks."""

    def __init__(self, towers: Towers, prototypes: ClassPrototypes, sides: Sides) -> None:
        super().__init__(towers, prototypes)
        self.blocks = nn.ModuleDict({modality: side.blocks for modality, side in sides.items()})


class TunedSampler(Sampler):
    """Draws batches whose features are computed by the blocks as they are, with gradients."""

    def __init__(self, units: Units, sides: Sides, device: torch.device) -> None:
        super().__init__(units, 0.0, device)
        self._sides = sides
        self._rows = {modality: rows_of(units, modality) for modality in sides}

    def _features(self, modality: Modality, rows: Int64) -> torch.Tensor:
        if modality not in self._sides:
            return super()._features(modality, rows)
        features = self._sides[modality].features(self._rows[modality][rows])
        return functional.normalize(features.float(), dim=1)


class TunedTrainer(Trainer):
    """Trains towers and blocks."""

    def __init__(self, towers: Towers, data: CaptionData, config: Config) -> None:
        super().__init__(towers, data, config)
        network = TunedNetwork(towers, self.network.prototypes, data.sides).to(device())
        self.network = network
        blocks = list(network.blocks.parameters())
        self.optimiser.add_param_group({"params": blocks, "lr": config.fine_tune_rate})
        self.rates.append(config.fine_tune_rate)
        self.sampler = TunedSampler(data.train, data.sides, device())

    def validation(self) -> Units:
        """Return the validation units that are measured, with features of the blocks as they are.

        They are those of :func:`~xmodal.training.validation.validation_recall`.
        """
        units = self.data.validation
        if not len(units):
            return units
        chosen = units.take(even_choice(len(units), MAX_UNITS).numpy())
        return with_features(chosen, self.data.sides)


def with_features(units: Units, sides: Sides) -> Units:
    """Return units with the features of the blocks as they are."""
    found = {one: current_features(side, rows_of(units, one)) for one, side in sides.items()}
    return replace(units, **found)  # type: ignore[arg-type]


def rows_of(units: Units, modality: Modality) -> Int64:
    """Return the row of the source of each picture or caption of units that are read by rows."""
    features = FeatureRows.of(units.features(modality))
    return np.arange(len(features)) if features.rows is None else features.rows

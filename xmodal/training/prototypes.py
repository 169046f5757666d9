"""A learned prototype code for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from xmodal.training.losses import soft_cross_entropy


class ClassPrototypes(nn.Module):
    """Logits of a softmax over class prototypes at a ``temperature``."""

    def __init__(self, classes: int, bits: int, temperature: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, bits))
        self.temperature = temperature

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """(1 - 2 d) / temperature between relaxed codes (n, bits) and tanh(weight), (n, c)."""
        prototypes = torch.tanh(self.weight)
        return (codes @ prototypes.T) / (codes.shape[1] * self.temperature)

    def loss(
        self,
        codes: Sequence[torch.Tensor],
        classes: torch.Tensor,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean over the modalities' ``codes`` (n, bits) of the cross-entropy to ``classes`` (n, c).

        ``weight`` (n,) of the items; by default the sums of their rows: a row of zeros has none.
        """
        weight = classes.sum(1) if weight is None else weight
        losses = [soft_cross_entropy(self(one), classes, weight) for one in codes]
        return torch.stack(losses).mean()


def class_temperature(classes: int, certainty: float) -> float:
    """T at which softmax((1, 0, ..., 0) / T) over ``classes`` has first component ``certainty``."""
    return 1 / math.log(max(1, classes - 1) * certainty / (1 - certainty))

"""A learned codeword for each class: what codes say of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from xmodal.training.losses import soft_cross_entropy


class Codewords(nn.Module):
    """The softmax over codewords, as logits, at a ``temperature``."""

    def __init__(self, classes: int, bits: int, temperature: float) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.randn(classes, bits))
        self.temperature = temperature

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """(1 - 2 d) / temperature between relaxed codes (n, bits) and codewords, (n, c)."""
        words = torch.tanh(self.words)
        return (codes @ words.T) / (codes.shape[1] * self.temperature)

    def loss(
        self,
        sides: Sequence[torch.Tensor],
        classes: torch.Tensor,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean over ``sides``, codes (n, bits), of their cross-entropy to ``classes`` (n, c).

        Items weigh ``weight`` (n,), by default the sums of their rows: one of zeros counts nothing.
        """
        weight = classes.sum(1) if weight is None else weight
        told = [soft_cross_entropy(self(codes), classes, weight) for codes in sides]
        return torch.stack(told).mean()


def class_temperature(classes: int, certainty: float) -> float:
    """T at which softmax((1, 0, ..., 0) / T) over ``classes`` gives the first ``certainty``."""
    return 1 / math.log(max(1, classes - 1) * certainty / (1 - certainty))

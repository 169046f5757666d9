"""A learned codeword for each class: what codes say of classes."""

from __future__ import annotations

import math

import torch
from torch import nn


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


def class_temperature(classes: int, certainty: float) -> float:
    """T at which softmax((1, 0, ..., 0) / T) over ``classes`` gives the first ``certainty``."""
    return 1 / math.log(max(1, classes - 1) * certainty / (1 - certainty))

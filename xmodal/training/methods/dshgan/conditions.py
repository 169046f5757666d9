"""What synthetic pairs are made from: the labels of the pair that asks, or its text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from xmodal.training.methods.dshgan.config import Config
from xmodal.training.pairs import Pairs
from xmodal.training.pseudo_labels import Beliefs


@dataclass(frozen=True)
class Asked:
    """What each of n queries asks for.

    ``conditions`` (n, w); their ``classes`` (n, c), rows sum to 1 or 0; ``agreement`` (n, n): how
    surely query i shares a class with what is made from condition j.
    """

    conditions: torch.Tensor
    classes: torch.Tensor
    agreement: torch.Tensor


class Lender:
    """The label sets that there are, those of labelled pairs, found by class."""

    def __init__(self, pairs: Pairs) -> None:
        self.labels = pairs.labels[pairs.labelled]
        self.rows = (self.labels.T > 0).nonzero()[:, 1]  # sorted by class
        self.counts = (self.labels > 0).sum(0)
        self.starts = self.counts.cumsum(0) - self.counts

    def lend(self, classes: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """For each belief (n, c) a class drawn by it, and the labels of a random pair that has it.

        Nothing, a row of zeros, where nothing is believed.
        """
        chances = (classes * (self.counts > 0)).double().cumsum(1)
        u = torch.from_numpy(rng.random((2, len(classes)))).to(chances)
        drawn = (chances <= u[0, :, None] * chances[:, -1:]).sum(1).clamp(max=classes.shape[1] - 1)
        nth = (u[1] * self.counts[drawn]).long()
        lent = self.labels[self.rows[(self.starts[drawn] + nth).clamp(max=len(self.rows) - 1)]]
        return lent * (chances[:, -1:] > 0)


def ask(
    part: Pairs, belief: Beliefs, lender: Lender, config: Config, rng: np.random.Generator
) -> Asked:
    """What some pairs ask for: their own labels, lent ones where they have none, or their texts."""
    if config.condition == "text":
        return Asked(part.text.float(), belief.classes, belief.agreement)
    labels = torch.where(part.labelled[:, None], part.labels, lender.lend(belief.classes, rng))
    classes = labels / labels.sum(1, keepdim=True).clamp(min=1)
    return Asked(labels, classes, (belief.presence @ labels.T).clamp(max=1))

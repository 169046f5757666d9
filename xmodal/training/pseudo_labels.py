"""What frozen features and the known labels already say, before any training.

Two things, both from natural pairs whose two sides are looked at *together*:

- where a pair lies in the space that both modalities share (canonical correlation analysis): there
  neighbours are far more often of one kind than in the features of either side;
- which classes it has: a logistic regression on both sides at once, told to the unlabelled.

Towers that see one side only learn from this what they cannot see: cross-modal distillation (Gupta,
Hoffman, Malik, CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from xmodal.linear_models import cca, logistic, unit
from xmodal.training.pairs import Pairs, even_choice

ENOUGH = 20_000  # pairs that are enough to fit on
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Beliefs:
    """``place`` (n, r): unit rows in the shared space. ``classes`` (n, c): each row sums to 1.

    ``presence`` (n, c) in [0, 1]: how surely a pair has a class, which for one of several classes
    can be 1 each. A labelled pair believes its labels alone; without any label both are zero.
    """

    place: torch.Tensor
    classes: torch.Tensor
    presence: torch.Tensor

    def take(self, rows: torch.Tensor) -> Beliefs:
        """The beliefs about the pairs at ``rows``."""
        return Beliefs(self.place[rows], self.classes[rows], self.presence[rows])

    @property
    def doubt(self) -> torch.Tensor:
        """1 - the presence of the likeliest class, (n,): 0 of a labelled pair, 1 without belief."""
        if not self.classes.shape[1]:
            return torch.ones(len(self.classes), device=self.classes.device)
        return 1 - self.presence.max(1).values

    @cached_property
    def agreement(self) -> torch.Tensor:
        """How surely pairs share a class, (n, n) in [0, 1]; 1 of a pair with itself.

        min(1, sum_c q_i(c) q_j(c)) of the presences q: exact where both are labelled.
        """
        shared = (self.presence @ self.presence.T).clamp(max=1)
        return torch.maximum(shared, torch.eye(len(shared), device=shared.device))


Believe = Callable[[Pairs], Beliefs]
"""Gives beliefs about any pairs, those of training or others."""


def learn(
    pairs: Pairs, *, directions: int, tell_unlabelled: bool = True, raw_images: bool = False
) -> Believe:
    """What gives beliefs about pairs, learned from ``pairs``; ``directions``: of the shared space.

    ``tell_unlabelled``: unlabelled pairs get the classes that the regression gives them, else none.
    Of ``raw_images`` (pixels) nothing is known yet, so the text speaks alone.
    """
    mean, fit = _rows(pairs.text).mean(axis=0), even_choice(len(pairs), ENOUGH)
    shared = (
        None if raw_images else cca(_rows(pairs.image[fit]), _rows(pairs.text[fit]), directions)
    )

    def sides(pairs: Pairs) -> list[Array]:
        text = _rows(pairs.text)
        if shared is None:
            return [unit(text - mean)]
        image = _rows(pairs.image)
        return [unit(shared.image(image)), unit(shared.text(text)), unit(image), unit(text)]

    classify, several = None, 1.0
    if pairs.labels.shape[1] and bool(pairs.labelled.any()):
        known = pairs.labelled.cpu().nonzero().flatten()
        taught = known[even_choice(len(known), ENOUGH)]
        labels = pairs.labels[taught].cpu().numpy() > 0
        several = max(1.0, float(labels.sum(axis=1).mean()))
        if tell_unlabelled:
            classify = logistic(np.concatenate(sides(pairs.take(taught)), axis=1), labels)

    def believe(pairs: Pairs) -> Beliefs:
        every = sides(pairs)
        place = every[0] if shared is None else unit(every[0] + every[1])
        labels, known = pairs.labels, pairs.labelled[:, None]
        told = torch.zeros_like(labels)
        if classify is not None and not bool(known.all()):
            told = torch.from_numpy(classify(np.concatenate(every, axis=1))).to(labels)
        classes = torch.where(known, labels / labels.sum(1, keepdim=True).clamp(min=1), told)
        presence = torch.where(known, labels, (several * told).clamp(max=1))
        return Beliefs(torch.from_numpy(place).to(labels), classes, presence)

    return believe


def _rows(features: torch.Tensor) -> Array:
    return features.cpu().numpy().astype(np.float32)

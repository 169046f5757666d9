"""Pseudo-labels and a shared embedding of pairs, from frozen features and the known labels.

Both are computed from image and text of a pair together, before training:

- the embedding of a pair in the space that both modalities share (canonical correlation analysis),
  where neighbours share a class more often than in the features of one modality;
- class probabilities by logistic regression on both modalities, for unlabelled pairs.

A tower has only one modality as input, so it is trained on targets that it could not compute
itself: cross-modal distillation (Gupta, Hoffman, Malik, CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from xmodal.linear_models import cca, logistic, unit
from xmodal.training.pairs import Pairs, TrainingPairs, even_choice

MAX_FIT_ROWS = 20_000
"""Pairs that CCA and the logistic regression are fitted on."""
MAX_STORED_ROWS = 100_000
"""Pairs whose pseudo-labels are computed once, before training."""
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PseudoLabels:
    """Embedding and class probabilities of n pairs.

    ``embedding`` (n, r): unit rows in the shared space. ``classes`` (n, c): distributions over
    classes, rows sum to 1. ``presence`` (n, c) in [0, 1]: probability that a pair has a class; a
    pair with several labels has several ones. Labelled pairs have their labels; without any label
    ``classes`` and ``presence`` are 0.
    """

    embedding: torch.Tensor
    classes: torch.Tensor
    presence: torch.Tensor

    def take(self, rows: torch.Tensor) -> PseudoLabels:
        """Return those of the pairs at ``rows``."""
        return PseudoLabels(self.embedding[rows], self.classes[rows], self.presence[rows])

    @property
    def uncertainty(self) -> torch.Tensor:
        """1 - max_c presence, (n,): 0 for labelled pairs, 1 without class probabilities."""
        if not self.classes.shape[1]:
            return torch.ones(len(self.classes), device=self.classes.device)
        return 1 - self.presence.max(1).values

    @cached_property
    def match_probability(self) -> torch.Tensor:
        """P_ij = min(1, sum_c q_i(c) q_j(c)) of the presences q, (n, n); P_ii = 1.

        Probability that two pairs share a class; exact where both are labelled with one class.
        """
        shared = (self.presence @ self.presence.T).clamp(max=1)
        return torch.maximum(shared, torch.eye(len(shared), device=shared.device))


PseudoLabeller = Callable[[Pairs], PseudoLabels]
"""Returns the pseudo-labels of any pairs, of training or others."""


@dataclass(frozen=True)
class LabelledLater:
    """Pseudo-labels of many pairs, which are computed when they are taken."""

    labeller: PseudoLabeller
    pairs: TrainingPairs

    def take(self, rows: torch.Tensor) -> PseudoLabels:
        """Return those of the pairs at ``rows``."""
        return self.labeller(self.pairs.take(rows))


def label_pairs(labeller: PseudoLabeller, pairs: TrainingPairs) -> PseudoLabels | LabelledLater:
    """Return the pseudo-labels of training pairs: all at once, or later with many pairs.

    They need 4 bytes for each of ``directions`` and twice the classes of a pair. Labels that are
    computed later differ by rounding.
    """
    if len(pairs) > MAX_STORED_ROWS:
        return LabelledLater(labeller, pairs)
    return labeller(pairs.take(torch.arange(len(pairs))))


def fit(
    pairs: TrainingPairs,
    *,
    directions: int,
    label_unlabelled: bool = True,
    raw_images: bool = False,
) -> PseudoLabeller:
    """Fit CCA and the logistic regression to ``pairs``.

    ``directions``: dimensions of the shared space. ``label_unlabelled``: unlabelled pairs get the
    class probabilities of the regression, else zeros. With ``raw_images`` (pixels) only the text
    features are used.
    """
    rows = even_choice(len(pairs), MAX_FIT_ROWS)
    mean = _numpy(pairs.text[even_choice(len(pairs), MAX_STORED_ROWS)]).mean(axis=0)
    shared = (
        None if raw_images else cca(_numpy(pairs.image[rows]), _numpy(pairs.text[rows]), directions)
    )

    def features(pairs: Pairs) -> list[Array]:
        text = _numpy(pairs.text)
        if shared is None:
            return [unit(text - mean)]
        image = _numpy(pairs.image)
        return [unit(shared.image(image)), unit(shared.text(text)), unit(image), unit(text)]

    classify, labels_per_pair = None, 1.0
    if pairs.labels.shape[1] and bool(pairs.labelled.any()):
        labelled = pairs.labelled.cpu().nonzero().flatten()
        rows = labelled[even_choice(len(labelled), MAX_FIT_ROWS)]
        labels = pairs.labels[rows].cpu().numpy() > 0
        labels_per_pair = max(1.0, float(labels.sum(axis=1).mean()))
        if label_unlabelled:
            classify = logistic(np.concatenate(features(pairs.take(rows)), axis=1), labels)

    def pseudo_labels(pairs: Pairs) -> PseudoLabels:
        parts = features(pairs)
        embedding = parts[0] if shared is None else unit(parts[0] + parts[1])
        labels, labelled = pairs.labels, pairs.labelled[:, None]
        predicted = torch.zeros_like(labels)
        if classify is not None and not bool(labelled.all()):
            predicted = torch.from_numpy(classify(np.concatenate(parts, axis=1))).to(labels)
        shares = labels / labels.sum(1, keepdim=True).clamp(min=1)
        classes = torch.where(labelled, shares, predicted)
        presence = torch.where(labelled, labels, (labels_per_pair * predicted).clamp(max=1))
        return PseudoLabels(torch.from_numpy(embedding).to(labels), classes, presence)

    return pseudo_labels


def _numpy(features: torch.Tensor) -> Array:
    return features.cpu().numpy().astype(np.float32)

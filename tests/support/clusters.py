"""Synthetic pairs for training tests: random features around the centres of classes.

``LABELS`` has them with labels of all sorts, ``NO_LABELS`` without any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from xmodal.training.pairs import Pairs
from xmodal.training.run import Run, TrainingData

CLASSES = 4


def clusters(
    n: int = 120, validation: int = 60, *, labelled: float = 1.0, bits: int = 16, seed: int = 0
) -> TrainingData:
    """Pairs of ``CLASSES`` classes; the first ``labelled`` share of training pairs has a label."""
    generator = torch.Generator().manual_seed(seed)
    image_centres = torch.randn(CLASSES, 20, generator=generator)
    text_centres = torch.randn(CLASSES, 14, generator=generator)

    def pairs(count: int) -> Pairs:
        kind = torch.arange(count) % CLASSES
        image = image_centres[kind] + 1.2 * torch.randn(count, 20, generator=generator)
        text = text_centres[kind] + 1.2 * torch.randn(count, 14, generator=generator)
        return Pairs(
            torch.nn.functional.normalize(image, dim=1),
            torch.nn.functional.normalize(text, dim=1),
            torch.nn.functional.one_hot(kind, CLASSES).float(),
            torch.ones(count, dtype=torch.bool),
        )

    train = pairs(n)
    known = torch.arange(n) < labelled * n
    train = replace(train, labelled=known, labels=train.labels * known[:, None])
    return TrainingData(train, pairs(validation), bits)


def several_labels(data: TrainingData) -> TrainingData:
    """Every third item gets a second label."""
    labels = data.train.labels.clone()
    labels[::3] = torch.maximum(labels[::3], labels[::3].roll(1, dims=1))
    return replace(data, train=replace(data.train, labels=labels))


def no_label_column(data: TrainingData) -> TrainingData:
    """Without label columns."""

    def without(pairs: Pairs) -> Pairs:
        return replace(pairs, labels=pairs.labels[:, :0], labelled=torch.zeros(len(pairs)).bool())

    return replace(data, train=without(data.train), validation=without(data.validation))


def one_class(data: TrainingData) -> TrainingData:
    """All items are of the first class."""
    labels = torch.zeros_like(data.train.labels)
    labels[:, 0] = 1
    return replace(data, train=replace(data.train, labels=labels))


def empty_class(data: TrainingData) -> TrainingData:
    """A fifth class without items, and labelled items without a class."""
    labels = torch.cat([data.train.labels, torch.zeros(len(data.train), 1)], dim=1)
    labels[:5] = 0
    validation = torch.cat([data.validation.labels, torch.zeros(len(data.validation), 1)], dim=1)
    told = replace(data.validation, labels=validation)
    return replace(data, train=replace(data.train, labels=labels), validation=told)


LABELS: dict[str, Callable[[], TrainingData]] = {
    "some": lambda: clusters(60, labelled=0.3),
    "one item": lambda: clusters(60, labelled=0.001),
    "all": lambda: clusters(60),
    "several": lambda: several_labels(clusters(60, labelled=0.5)),
    "empty class": lambda: empty_class(clusters(60, labelled=0.5)),
    "one class": lambda: one_class(clusters(60)),
}
NO_LABELS: dict[str, Callable[[], TrainingData]] = {
    "none": lambda: clusters(60, labelled=0),
    "no column": lambda: no_label_column(clusters(60)),
}


def finite(run: Run) -> bool:
    """Whether all losses and weights of a training are finite."""
    values = [value for row in run.history for value in row.values()]
    weights = run._best_state.values()
    return (
        bool(values)
        and bool(np.isfinite(values).all())
        and all(bool(torch.isfinite(one).all()) for one in weights)
    )

"""Synthetic pairs for training tests: random features around the centres of classes."""

from __future__ import annotations

from dataclasses import replace

import torch

from xmodal.run import TrainingData
from xmodal.sampling import Pairs

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

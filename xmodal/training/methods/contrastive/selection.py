"""Selection of captions for pictures, both without a pair, by the codes of towers.

Codes are compared by the cosine of their relaxed values. All rules are deterministic, except for
the random choice, which depends on its generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from xmodal.encoders.torch_encoder import as_tensor
from xmodal.encoders.towers import Towers
from xmodal.features.rows import Features, Int64
from xmodal.features.unpaired import Unpaired
from xmodal.modality import Modality
from xmodal.training.methods.contrastive.unpaired import Choice, UnpairedConfig

BLOCK_ROWS = 1024
"""Pictures, or captions, that are compared with all others at once."""
NEAREST = 5
"""Captions of a picture for the rules "nearest" and "random"."""


@dataclass(frozen=True)
class Embedded:
    """Relaxed codes of unpaired data, of length 1: ``image`` (p, K), ``text`` (c, K)."""

    image: torch.Tensor
    text: torch.Tensor

    @classmethod
    def of(cls, towers: Towers, unpaired: Unpaired) -> Embedded:
        """Encode the pictures and captions."""
        return cls(_codes(towers, "image", unpaired.image), _codes(towers, "text", unpaired.text))


def choose(embedded: Embedded, config: UnpairedConfig, rng: np.random.Generator) -> Choice:
    """Choose captions for pictures by the rule of ``config``; a picture may have none."""
    if config.unpaired == "random":
        return random_choice(len(embedded.image), len(embedded.text), rng)
    if config.unpaired == "nearest":
        near = nearest(embedded.image, embedded.text, NEAREST)
        return Choice(np.repeat(np.arange(len(near)), near.shape[1]), near.ravel())
    return mutual(embedded, config.unpaired_neighbours)


def mutual(embedded: Embedded, k: int) -> Choice:
    """Choose the pairs in which each is among the ``k`` nearest of the other."""
    captions = nearest(embedded.image, embedded.text, k)
    pictures = nearest(embedded.text, embedded.image, k)
    image = np.repeat(np.arange(len(captions)), captions.shape[1])
    text = captions.ravel()
    kept = (pictures[text] == image[:, None]).any(axis=1)
    return Choice(image[kept], text[kept])


def random_choice(pictures: int, captions: int, rng: np.random.Generator) -> Choice:
    """Choose NEAREST captions at random for each picture."""
    each = min(NEAREST, captions)
    return Choice(
        np.repeat(np.arange(pictures), each), rng.integers(captions, size=pictures * each)
    )


def nearest(queries: torch.Tensor, items: torch.Tensor, k: int) -> Int64:
    """Return the rows of the ``k`` items, at most all, with the largest inner product, (n, k)."""
    parts = [
        (block @ items.T).topk(min(k, len(items)), dim=1).indices
        for block in queries.split(BLOCK_ROWS)
    ]
    return torch.cat(parts).numpy()


def _codes(towers: Towers, modality: Modality, features: Features) -> torch.Tensor:
    outputs = towers.outputs(modality, as_tensor(np.asarray(features)))
    return functional.normalize(torch.tanh(torch.from_numpy(outputs)), dim=1)

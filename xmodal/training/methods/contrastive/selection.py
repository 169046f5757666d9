"""Selection of captions for pictures, both without a pair, by the codes of towers.

Codes are compared by the cosine of their relaxed values. Rules:

    mutual     pairs in which each is among the nearest of the other
    nearest    the nearest captions of a picture
    random     captions at random
    soft       captions drawn by a softmax over the similarities of the nearest ones
    transport  the same after scaling, so that all captions are drawn equally often: entropic
               optimal transport on the nearest captions (Cuturi, NIPS 2013)
    policy     captions drawn by a policy: :mod:`xmodal.training.methods.contrastive.generator`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from xmodal.encoders.torch_encoder import as_tensor
from xmodal.encoders.towers import Towers
from xmodal.features.rows import Features, Int64
from xmodal.features.unpaired import Unpaired
from xmodal.modality import MODALITIES, Modality
from xmodal.training.methods.contrastive.unpaired import Choice, UnpairedConfig

BLOCK_ROWS = 1024
"""Pictures, or captions, that are compared with all others at once."""
NEAREST = 5
"""Captions of a picture for the rules "nearest" and "random"."""
CANDIDATES = 50
"""Nearest captions of a picture that have a probability."""
DRAWS = 10
"""Captions of a picture that are drawn, with repetitions."""
SINKHORN_ROUNDS = 50


@dataclass(frozen=True)
class Embedded:
    """Relaxed codes of unpaired data, of length 1: ``image`` (p, K), ``text`` (c, K)."""

    image: torch.Tensor
    text: torch.Tensor

    @classmethod
    def of(cls, towers: Sequence[Towers], unpaired: Unpaired) -> Embedded:
        """Encode the pictures and captions; similarities are the means over several towers."""
        image, text = (
            torch.cat([_codes(one, modality, unpaired.features(modality)) for one in towers], dim=1)
            / len(towers) ** 0.5
            for modality in MODALITIES
        )
        return cls(image, text)


def choose(embedded: Embedded, config: UnpairedConfig, rng: np.random.Generator) -> Choice:
    """Choose captions for pictures by a rule of ``config``; a picture may have none."""
    if config.unpaired == "random":
        return random_choice(len(embedded.image), len(embedded.text), rng)
    if config.unpaired == "nearest":
        near = nearest(embedded.image, embedded.text, NEAREST)
        return Choice(np.repeat(np.arange(len(near)), near.shape[1]), near.ravel())
    if config.unpaired in ("soft", "transport"):
        pool = Pool.of(embedded)
        logits = pool.similarity / config.unpaired_temperature
        if config.unpaired == "transport":
            logits = transport(logits, pool.rows, len(embedded.text))
        return pool.draw(torch.softmax(logits, dim=1), rng)
    return mutual(embedded, config.unpaired_neighbours)


@dataclass(frozen=True)
class Pool:
    """Candidates of each picture: rows of captions (p, k), nearest first, and similarities."""

    rows: torch.Tensor
    similarity: torch.Tensor

    @classmethod
    def of(cls, embedded: Embedded, k: int = CANDIDATES) -> Pool:
        """Return the ``k`` nearest captions of each picture, at most all."""
        rows = torch.from_numpy(nearest(embedded.image, embedded.text, k))
        parts = [
            torch.einsum("bk,bnk->bn", image, embedded.text[near])
            for image, near in zip(
                embedded.image.split(BLOCK_ROWS), rows.split(BLOCK_ROWS), strict=True
            )
        ]
        return cls(rows, torch.cat(parts))

    def draw(self, probability: torch.Tensor, rng: np.random.Generator) -> Choice:
        """Draw DRAWS captions of each picture, with repetitions, by probabilities (p, k)."""
        ends = probability.double().cumsum(1).numpy()
        drawn = rng.random((len(ends), DRAWS)) * ends[:, -1:]
        places = np.stack([(ends < one[:, None]).sum(1) for one in drawn.T], axis=1)
        places = np.minimum(places, ends.shape[1] - 1)
        text = np.take_along_axis(self.rows.numpy(), places, axis=1)
        return Choice(np.repeat(np.arange(len(text)), DRAWS), text.ravel())


def transport(logits: torch.Tensor, rows: torch.Tensor, captions: int) -> torch.Tensor:
    """Return logits (p, k) of the transport plan between pictures and candidates ``rows`` (p, k).

    Every picture has the mass 1; captions that are a candidate share it equally, as far as
    SINKHORN_ROUNDS scalings reach.
    """
    flat = rows.flatten()
    used = torch.zeros(captions).index_add_(0, flat, torch.ones(len(flat))) > 0
    target = len(rows) / float(used.sum())
    scaled = logits - logits.max()
    for _ in range(SINKHORN_ROUNDS):
        scaled = scaled - scaled.logsumexp(1, keepdim=True)
        mass = torch.zeros(captions).index_add_(0, flat, scaled.exp().flatten())
        scaled = scaled - (mass.clamp(min=1e-12) / target).log()[rows]
    return scaled


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

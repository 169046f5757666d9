"""Losses and rewards of SCH-GAN: functions of a forward pass and its candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from xmodal.modality import MODALITIES, Modality
from xmodal.training.losses import distance, expected_hinge
from xmodal.training.methods.schgan.config import NegativesConfig
from xmodal.training.methods.schgan.networks import ByQuery, Candidates
from xmodal.training.objective import ForwardPass
from xmodal.training.pairs import sample_match

RADIUS, WIDTH = 0.25, 0.08
"""Distance, as a share of the bits, at which the correlation score is 1/2, and its scale."""


def directions(batch: ForwardPass) -> Iterator[tuple[Modality, torch.Tensor]]:
    """Yield the modality of the queries and their distances to all candidates, (n, n)."""
    distances = distance(*batch.codes)
    yield "image", distances
    yield "text", distances.T


def sample_positives(candidates: Candidates, rng: np.random.Generator) -> ByQuery:
    """Sample a match x+ of each query, (n,), in both directions."""
    return {modality: sample_match(candidates.match, rng) for modality in MODALITIES}


def positive_distances(distances: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """d+ of each query: (n, n), (n,) -> (n,)."""
    return distances.gather(1, positives[:, None]).squeeze(1)


@torch.no_grad()
def negative_weights(
    log_p: torch.Tensor | None,
    candidates: Candidates,
    distances: torch.Tensor,
    positive: torch.Tensor,
    config: NegativesConfig,
) -> torch.Tensor:
    """Distribution over negatives x- of each query, (n, n): rows sum to 1, or are 0.

    ``log_p`` (n, n): the policy, None for a rule. ``positive`` (n,): d+. The selection is
    multiplied by the candidates' weights.
    """
    if log_p is not None:
        selected = log_p.exp()
    elif config.negatives == "semi-hard":
        gap = distances - positive[:, None]
        selected = ((gap > 0) & (gap < config.margin)).float()
    else:
        selected = torch.ones_like(distances)
    return _rows_to_one(selected * candidates.weight)


def triplet_loss(
    batch: ForwardPass,
    candidates: Candidates,
    policies: Mapping[Modality, torch.Tensor],
    config: NegativesConfig,
    warm: bool,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Mean over both directions of the expected hinge, SCH-GAN eq. 6 in expectation over x-.

    ``policies``: log p of the negative policy, empty for a rule. Before ``warm`` negatives are
    random.
    """
    total = torch.zeros((), device=batch.codes[0].device)
    positives = sample_positives(candidates, rng)
    for modality, distances in directions(batch):
        positive = positive_distances(distances, positives[modality])
        weight = _rows_to_one(candidates.weight)
        if config.negatives != "random" and warm:
            log_p = policies.get(modality)
            selected = negative_weights(log_p, candidates, distances, positive, config)
            weight = (1 - config.policy_share) * weight + config.policy_share * selected
        total = total + expected_hinge(positive, distances, weight, config.margin) / 2
    return total


def correlation_score(batch: ForwardPass) -> torch.Tensor:
    """Reward of a positive: sigmoid((r - mean of d(image_i, text_j), d(image_j, text_i)) / width).

    (n, n), symmetric, without gradients.
    """
    distances = distance(*batch.codes).detach()
    return torch.sigmoid((RADIUS - (distances + distances.T) / 2) / WIDTH)


@torch.no_grad()
def negative_statistics(
    policies: Mapping[Modality, torch.Tensor],
    batch: ForwardPass,
    candidates: Candidates,
    truth: torch.Tensor,
    config: NegativesConfig,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Compare selected negatives with true labels that the selection does not use.

    ``truth`` (n, n) bool: pairs that share a label. Returns the mean distance of selected negatives
    from the margin as a share of the bits, the share of them that are true matches, and the same
    share of random candidates; an empty dict without candidates.
    """
    positives = sample_positives(candidates, rng)
    off_margin, false, random = [], [], []
    for modality, distances in directions(batch):
        positive = positive_distances(distances, positives[modality])
        log_p = policies.get(modality)
        selected = negative_weights(log_p, candidates, distances, positive, config)
        uniform = _rows_to_one(candidates.weight)
        apart = (config.margin + positive[:, None] - distances).abs()
        some = selected.sum(1) > 0
        if not bool(some.any()):
            return {}
        off_margin.append(float((selected * apart).sum(1)[some].mean()))
        false.append(float((selected * truth).sum(1)[some].mean()))
        random.append(float((uniform * truth).sum(1)[some].mean()))
    named = {"picks off margin": off_margin, "picks that match": false}
    named["others that match"] = random
    return {name: float(np.mean(values)) for name, values in named.items()}


def _rows_to_one(weight: torch.Tensor) -> torch.Tensor:
    return weight / weight.sum(1, keepdim=True).clamp(min=1e-6)

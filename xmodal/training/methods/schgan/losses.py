"""Losses and rewards of SCH-GAN: functions of a forward pass and its candidates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from xmodal.modality import Modality
from xmodal.training.losses import distance
from xmodal.training.negatives import (
    Candidates,
    NegativesConfig,
    directions,
    negative_weights,
    positive_distances,
    rows_to_one,
    sample_positives,
)
from xmodal.training.objective import ForwardPass

RADIUS, WIDTH = 0.25, 0.08
"""Distance, as a share of the bits, at which the correlation score is 1/2, and its scale."""


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
        uniform = rows_to_one(candidates.weight)
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

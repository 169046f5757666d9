"""Which items meet which: batches, positives, candidates, neighbours, pseudo-labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional


@dataclass(frozen=True)
class Pairs:
    """Natural pairs, as tensors.

    ``image`` (n, d_image) and ``text`` (n, d_text): features. ``labels`` (n, c) float, multi-hot;
    ``labelled`` (n,) bool: the rows of the others mean nothing.
    """

    image: torch.Tensor
    text: torch.Tensor
    labels: torch.Tensor
    labelled: torch.Tensor

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: torch.Tensor) -> Pairs:
        """The pairs at ``rows``."""
        return Pairs(self.image[rows], self.text[rows], self.labels[rows], self.labelled[rows])

    def to(self, device: torch.device) -> Pairs:
        """The same on a device."""
        return Pairs(
            self.image.to(device),
            self.text.to(device),
            self.labels.to(device),
            self.labelled.to(device),
        )


def batches(n: int, size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Rows 0..n-1 in random order, in batches of nearly equal length, none above ``size``."""
    order = rng.permutation(n)
    for part in np.array_split(order, max(1, -(-n // size))):
        yield torch.from_numpy(part)


def matches(labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Who is a match of whom, (n, n) bool: the natural pair, and known items that share a label."""
    usable = labels * known[:, None]
    return (usable @ usable.T > 0) | torch.eye(len(labels), dtype=torch.bool, device=labels.device)


def likeness(labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """How alike items are by their labels, (n, n): cosine of label rows; 1 for the natural pair."""
    usable = functional.normalize(labels * known[:, None], dim=1)
    own = torch.eye(len(labels), device=labels.device)
    return torch.maximum(usable @ usable.T, own)


def one_match(match: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A random match of each row, (n,): x+ of each query."""
    noise = torch.from_numpy(rng.random(match.shape, dtype=np.float32)).to(match.device)
    return (match * (noise + 1e-3)).argmax(1)


def candidate_weights(
    labels: torch.Tensor, known: torch.Tensor, posterior: torch.Tensor | None
) -> torch.Tensor:
    """How surely item j is *not* a match of query i, (n, n) in [0, 1]; 0 on the diagonal.

    1 or 0 where both are labelled. Where one is not, 1 - sum_c p_i(c) p_j(c) by the class
    ``posterior`` (n, c) (known labels count as certain); 1 where there is none.
    """
    sure = ~matches(labels, known)
    both = known[:, None] & known[None, :]
    if posterior is None or posterior.shape[1] == 0:
        return sure.float()
    share = labels / labels.sum(1, keepdim=True).clamp(min=1)
    belief = torch.where(known[:, None], share, posterior)
    guess = (1 - belief @ belief.T).clamp(0, 1) * sure
    return torch.where(both, sure.float(), guess)


def with_pseudo_labels(
    labels: torch.Tensor,
    known: torch.Tensor,
    posterior: torch.Tensor,
    threshold: float,
    count: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (n, c) and who has some (n,), after unlabelled items got their likeliest ``count``.

    ``posterior`` (n, c); items whose likeliest classes have less than ``threshold`` together stay
    unlabelled.
    """
    top = posterior.topk(min(count, posterior.shape[1]), dim=1)
    sure = ~known & (top.values.sum(1) >= threshold)
    guess = torch.zeros_like(labels).scatter_(1, top.indices, 1.0)
    return torch.where(sure[:, None], guess, labels), known | sure


def labels_per_item(labels: torch.Tensor, known: torch.Tensor) -> int:
    """How many labels a labelled item has, rounded mean, at least 1."""
    return max(1, round(float(labels[known].sum(1).mean()))) if bool(known.any()) else 1


def neighbour_target(
    image: torch.Tensor, text: torch.Tensor, temperature: float, share: float = 0.5
) -> torch.Tensor:
    """How alike items are by their frozen features: softmax of the fused cosine, (n, n).

    ``share`` is the image side's part; features are centred per side first.
    """

    def cosine(features: torch.Tensor) -> torch.Tensor:
        unit = functional.normalize(features.float() - features.float().mean(0), dim=1)
        return unit @ unit.T

    fused = share * cosine(image) + (1 - share) * cosine(text)
    return torch.softmax(fused / temperature, dim=1)

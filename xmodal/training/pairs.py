"""Pairs as tensors; sampling of rows, batches, matches and neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from xmodal.encoders.torch_encoder import RowTensor


@dataclass(frozen=True)
class Pairs:
    """Natural pairs of an image and a text, as tensors.

    ``image`` (n, d_image) and ``text`` (n, d_text): features. ``labels`` (n, c) float, multi-hot;
    rows of pairs that are not ``labelled`` (n,) bool have no meaning.
    """

    image: torch.Tensor
    text: torch.Tensor
    labels: torch.Tensor
    labelled: torch.Tensor

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: torch.Tensor) -> Pairs:
        """Return the pairs at ``rows``."""
        return Pairs(self.image[rows], self.text[rows], self.labels[rows], self.labelled[rows])

    def to(self, device: torch.device) -> Pairs:
        """Return the pairs on a device."""
        return Pairs(
            self.image.to(device),
            self.text.to(device),
            self.labels.to(device),
            self.labelled.to(device),
        )


@dataclass(frozen=True)
class StoredPairs:
    """Pairs whose features and labels are read by rows: memory does not depend on the features."""

    image: RowTensor
    text: RowTensor
    labels: RowTensor
    labelled: torch.Tensor

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: torch.Tensor) -> Pairs:
        """Read the pairs at ``rows``."""
        labelled = self.labelled[rows.to(self.labelled.device)]
        return Pairs(self.image[rows], self.text[rows], self.labels[rows], labelled)

    def to(self, device: torch.device) -> StoredPairs:
        """Return the pairs; their rows are read onto ``device``."""
        return StoredPairs(
            self.image.to(device),
            self.text.to(device),
            self.labels.to(device),
            self.labelled.to(device),
        )


TrainingPairs = Pairs | StoredPairs
"""All pairs of a training."""


def even_choice(n: int, max_rows: int) -> torch.Tensor:
    """Return at most ``max_rows`` of the rows 0..n-1, evenly spaced; no randomness."""
    return torch.linspace(0, n - 1, min(n, max_rows), dtype=torch.float64).long()


def batches(n: int, size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Yield the rows 0..n-1 in random order, in batches of nearly equal length up to ``size``."""
    order = rng.permutation(n)
    for part in np.array_split(order, max(1, -(-n // size))):
        yield torch.from_numpy(part)


def match_matrix(labels: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    """Return (n, n) bool: natural pairs, and labelled items that share a label, are matches."""
    usable = labels * labelled[:, None]
    return (usable @ usable.T > 0) | torch.eye(len(labels), dtype=torch.bool, device=labels.device)


def sample_match(match: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Sample a column of each row of ``match`` (n, m) bool: the positive x+ of each query, (n,)."""
    noise = torch.from_numpy(rng.random(match.shape, dtype=np.float32)).to(match.device)
    return (match * (noise + 1e-3)).argmax(1)


def add_neighbours(
    rows: torch.Tensor, nearest: torch.Tensor, each: int, rng: np.random.Generator
) -> torch.Tensor:
    """Append to ``rows`` (b,) random neighbours of each row, ``each`` draws a row.

    ``nearest`` (n, k): the rows of each item's neighbours. The result has no duplicates.
    """
    count, k = len(rows), nearest.shape[1]
    if not k:
        return rows
    columns = torch.from_numpy(rng.integers(k, size=(count, each)))
    drawn = nearest[rows].gather(1, columns).flatten().unique()
    return torch.cat([rows, drawn[~torch.isin(drawn, rows)]])


def neighbour_matrix(nearest: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return (b, b) bool for distinct ``rows`` (b,): [i, j] is True if j is a neighbour of i."""
    place = torch.full((len(nearest),), -1, dtype=torch.long)
    place[rows] = torch.arange(len(rows))
    found = place[nearest[rows]]
    near = torch.zeros(len(rows), len(rows) + 1, dtype=torch.bool)
    near.scatter_(1, torch.where(found < 0, len(rows), found), True)
    return near[:, :-1]

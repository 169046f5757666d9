"""Which items meet which: pairs, batches, matches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch


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


def even_choice(n: int, most: int) -> torch.Tensor:
    """At most ``most`` of the rows 0..n-1, evenly spread: the same whenever it is asked."""
    return torch.linspace(0, n - 1, min(n, most), dtype=torch.float64).long()


def batches(n: int, size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Rows 0..n-1 in random order, in batches of nearly equal length, none above ``size``."""
    order = rng.permutation(n)
    for part in np.array_split(order, max(1, -(-n // size))):
        yield torch.from_numpy(part)


def matches(labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Who is a match of whom, (n, n) bool: the natural pair, and known items that share a label."""
    usable = labels * known[:, None]
    return (usable @ usable.T > 0) | torch.eye(len(labels), dtype=torch.bool, device=labels.device)


def one_match(match: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A random match of each row, (n,): x+ of each query."""
    noise = torch.from_numpy(rng.random(match.shape, dtype=np.float32)).to(match.device)
    return (match * (noise + 1e-3)).argmax(1)


def with_company(
    rows: torch.Tensor, nearest: torch.Tensor, each: int, rng: np.random.Generator
) -> torch.Tensor:
    """``rows`` (b,) and, after them, ``each`` random neighbours of each that are not among them.

    ``nearest`` (n, k): the rows of each item's neighbours. No row comes twice.
    """
    count, k = len(rows), nearest.shape[1]
    if not k:
        return rows
    columns = torch.from_numpy(rng.integers(k, size=(count, each)))
    company = nearest[rows].gather(1, columns).flatten().unique()
    return torch.cat([rows, company[~torch.isin(company, rows)]])


def neighbours_among(nearest: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Who of ``rows`` (b,), all different, is a neighbour of whom: (b, b) bool, [i, j]: j of i."""
    place = torch.full((len(nearest),), -1, dtype=torch.long)
    place[rows] = torch.arange(len(rows))
    found = place[nearest[rows]]
    near = torch.zeros(len(rows), len(rows) + 1, dtype=torch.bool)
    near.scatter_(1, torch.where(found < 0, len(rows), found), True)
    return near[:, :-1]

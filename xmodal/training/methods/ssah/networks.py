"""A-Net: makes hard samples, of feature vectors or of pictures.

How much is hidden and how far things turn is fixed; A-Net's scores say *where* and *which*. With
all scores alike the same code is random masking of the same area and at the same angles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from xmodal.training.pairs import even_choice

SIDE, PIXELS = 8, 64
"""Cells along a side of a picture, and its pixels."""
MOST_CELLS = 64
"""Cells of a feature vector; fewer where they would be of unequal length."""
COMPONENTS, ENOUGH = 256, 5000
"""Principal components of features that are looked at, and items that are enough to find them."""
GROUPS = 8
"""Groups of planes, each of which is turned by an angle of its own."""

DECIDED = 2.0
"""The largest score: A-Net never stops trying other places, else H-Net learns to do without a few
and A-Net has no way back."""


def runs(cells: int, length: int, around: bool = False) -> torch.Tensor:
    """The cells that each run of ``length`` among ``cells`` covers, (places, cells) of 0 and 1.

    ``around``: runs go on at the other end, so that there is one at every cell.
    """
    start = torch.arange(cells if around else cells - length + 1)[:, None]
    return ((torch.arange(cells) - start) % cells < length).float()


def squares(side: int, length: int) -> torch.Tensor:
    """The cells that each square of a side of ``length`` covers, (places, side * side)."""
    return torch.kron(runs(side, length), runs(side, length))


def how_many(hidden: int, sizes: Sequence[int]) -> list[int]:
    """How many blocks of each size hide ``hidden`` cells in all; the last size is 1.

    Each size gets about the same part of them.
    """
    counts: list[int] = []
    left = hidden
    for size in sizes[:-1]:
        counts.append(min(round(hidden / len(sizes) / size), left // size))
        left -= counts[-1] * size
    return [*counts, left]


def hide(
    scores: Sequence[torch.Tensor], covers: Sequence[torch.Tensor], counts: Sequence[int]
) -> torch.Tensor:
    """Which cells are hidden, (n, cells) of 0 and 1: ``counts`` blocks of each size, none twice.

    ``scores`` (n, places) of each size: a place is drawn with probability softmax(score) among the
    free ones (Gumbel-max). Gradients go straight through to that softmax.
    """
    hidden = scores[0].new_zeros(len(scores[0]), covers[0].shape[1])
    for score, cover, count in zip(scores, covers, counts, strict=True):
        for _ in range(count):
            noisy = score - torch.empty_like(score).exponential_().clamp(min=1e-20).log()
            noisy = noisy.masked_fill(hidden.detach() @ cover.T > 0, -torch.inf)
            soft = torch.softmax(noisy, dim=1)
            best = functional.one_hot(noisy.argmax(1), noisy.shape[1]).to(soft)
            hidden = hidden + (best + (soft - soft.detach())) @ cover
    return hidden


def deal(scores: torch.Tensor, most: float) -> torch.Tensor:
    """Angles of the shape of ``scores``, spread evenly over (-most, most), in their noisy order.

    Whatever the scores, these are the same angles. Gradients go straight through to the scores.
    """
    noisy = (scores + torch.randn_like(scores)).flatten()
    rank = noisy.argsort().argsort()
    angles = (2 * (rank + 0.5) / max(1, len(rank)) - 1) * most
    return (angles + most * (noisy - noisy.detach())).view(scores.shape)


class ANet(nn.Module):
    """Makes hard samples of one modality: what both kinds of input share."""

    def __init__(self, covers: Sequence[torch.Tensor], hidden: int, turns: int, most: float):
        super().__init__()
        for place, cover in enumerate(covers):
            self.register_buffer(f"cover{place}", cover, persistent=False)
        self.sizes = len(covers)
        self.counts = how_many(hidden, [int(cover[0].sum()) for cover in covers])
        self.turns, self.most = turns, most

    def forward(
        self, inputs: torch.Tensor, learned: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs (n, d) -> hard samples (n, d), hidden cells (n, cells), angles (n, turns).

        If not ``learned``, all places and turns score the same: chance alone decides.
        """
        covers = [self.get_buffer(f"cover{place}") for place in range(self.sizes)]
        widths = [*(len(cover) for cover in covers), self.turns]
        if learned:
            scores = DECIDED * torch.tanh(self.scores(inputs) / DECIDED)
        else:
            scores = inputs.new_zeros(len(inputs), sum(widths), dtype=torch.float32)
        *places, turns = scores.split(widths, dim=1)
        hidden, angles = hide(places, covers, self.counts), deal(turns, self.most)
        return self.distort(inputs.float(), hidden, angles), hidden, angles

    def scores(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs (n, d) -> scores of all places, size by size, and of the turns."""
        raise NotImplementedError

    def distort(
        self, inputs: torch.Tensor, hidden: torch.Tensor, angles: torch.Tensor
    ) -> torch.Tensor:
        """Turn the inputs (n, d), then hide cells."""
        raise NotImplementedError


class FeatureANet(ANet):
    """Of feature vectors: what is hidden are principal components, they get the mean's value.

    Of C cells, cell c holds components c, c + C, c + 2C, ...: all hold as many, and about as much.
    Those that are left over are never hidden, nor is what no component holds. What turns are
    random planes of two components.
    """

    def __init__(self, features: torch.Tensor, area: float, most: float, turns: bool) -> None:
        some = features[even_choice(len(features), ENOUGH)].float()
        size = min(COMPONENTS, *some.shape)
        cells = min(range(MOST_CELLS, MOST_CELLS // 2, -1), key=lambda cells: size % cells)
        cells = min(size, cells)
        covers = [runs(cells, length, around=True) for length in (8, 4, 1) if length <= cells]
        hidden = int(area * size) // (size // cells)
        super().__init__(covers, hidden, min(GROUPS, size // 2) if turns else 0, most)
        self.length = size // cells
        self.register_buffer("mean", some.mean(0))
        _, _, directions = torch.svd_lowrank(some - some.mean(0), size, niter=4)
        self.register_buffer("directions", directions)
        self.register_buffer("planes", torch.randperm(size))
        dim = features.shape[1]
        self.net = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 128), nn.GELU())
        self.last = _from_zero(nn.Linear(128, sum(map(len, covers)) + self.turns))

    def scores(self, inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.net(inputs.float()))
        return out

    def distort(
        self, inputs: torch.Tensor, hidden: torch.Tensor, angles: torch.Tensor
    ) -> torch.Tensor:
        directions = self.get_buffer("directions")
        before = (inputs - self.get_buffer("mean")) @ directions
        after = before
        if self.turns:
            planes = self.get_buffer("planes")
            half = len(planes) // 2
            one, other, rest = before[:, planes].split([half, half, len(planes) - 2 * half], dim=1)
            angle = angles[:, torch.arange(half, device=angles.device) * self.turns // half]
            cos, sin = angle.cos(), angle.sin()
            turned = [cos * one - sin * other, sin * one + cos * other, rest]
            after = torch.cat(turned, dim=1)[:, planes.argsort()]
        mask = hidden.repeat(1, self.length)
        mask = functional.pad(mask, (0, before.shape[1] - mask.shape[1]))
        return inputs + ((1 - mask) * after - before) @ directions.T


class PixelANet(ANet):
    """Of flat pictures of 64 x 64 pixels: cells of 8 x 8 pixels, and a real rotation.

    What is hidden gets the mean colour of the picture; what turns in at the edge repeats it.
    """

    def __init__(self, area: float, most: float) -> None:
        self.lengths = (3, 2, 1)
        covers = [squares(SIDE, length) for length in self.lengths]
        super().__init__(covers, int(area * SIDE * SIDE), 1, most)
        self.net = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(3, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
        )
        self.places = _from_zero(nn.Conv2d(64, len(covers), 1))
        self.turn = _from_zero(nn.Linear(64, 1))

    def scores(self, inputs: torch.Tensor) -> torch.Tensor:
        maps = self.net(_pictures(inputs.float()) / 127.5 - 1)
        places = [
            functional.avg_pool2d(part, length, stride=1).flatten(1)
            for part, length in zip(self.places(maps).split(1, dim=1), self.lengths, strict=True)
        ]
        return torch.cat([*places, self.turn(maps.mean((2, 3)))], dim=1)

    def distort(
        self, inputs: torch.Tensor, hidden: torch.Tensor, angles: torch.Tensor
    ) -> torch.Tensor:
        pictures = _pictures(inputs)
        cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero], dim=2).view(-1, 2, 3)
        grid = functional.affine_grid(turn, list(pictures.shape), align_corners=False)
        turned = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
        mask = hidden.view(-1, 1, SIDE, SIDE)
        mask = functional.interpolate(mask, scale_factor=PIXELS // SIDE)
        covered = (1 - mask) * turned + mask * pictures.mean((2, 3), keepdim=True)
        return covered.permute(0, 2, 3, 1).flatten(1)


def _pictures(flat: torch.Tensor) -> torch.Tensor:
    return flat.view(-1, PIXELS, PIXELS, 3).permute(0, 3, 1, 2)


def _from_zero(layer: nn.Module) -> nn.Module:
    """The layer with all its weights 0: before it learns, A-Net is chance."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer

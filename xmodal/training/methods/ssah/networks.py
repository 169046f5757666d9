"""The networks of SSAH: A-Net, which makes hard samples of features or pictures, and H-Net.

The number of hidden cells and the angles are fixed; A-Net's scores select the cells and assign the
angles. With equal scores the result is random masking of the same area and rotation by the same
angles.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from xmodal.encoders.torch_encoder import RowTensor
from xmodal.encoders.towers import Towers
from xmodal.modality import Modality
from xmodal.training.methods.ssah.config import Config
from xmodal.training.pairs import even_choice
from xmodal.training.run import TrainingData

CELLS_PER_SIDE, PIXELS = 8, 64
"""Cells along a side of a picture, and pixels along a side."""
MAX_CELLS = 64
"""Cells of a feature vector; fewer if this number does not divide the components."""
MAX_COMPONENTS, MAX_FIT_ROWS = 256, 5000
"""Principal components of features, and items from which they are computed."""
MAX_ROTATION_GROUPS = 8
"""Groups of planes; all planes of a group are rotated by one angle."""
MAX_SCORE = 2.0
"""Bound of A-Net's scores: it keeps some probability for every cell, because H-Net would otherwise
learn to ignore the few selected cells."""


def run_covers(cells: int, length: int, wrap: bool = False) -> torch.Tensor:
    """Cells that each run of ``length`` among ``cells`` covers, (places, cells) of 0 and 1.

    ``wrap``: runs continue at the other end, so there is one place for each cell.
    """
    start = torch.arange(cells if wrap else cells - length + 1)[:, None]
    return ((torch.arange(cells) - start) % cells < length).float()


def square_covers(side: int, length: int) -> torch.Tensor:
    """Cells that each square of ``length`` x ``length`` cells covers, (places, side * side)."""
    return torch.kron(run_covers(side, length), run_covers(side, length))


def blocks_per_size(hidden: int, sizes: Sequence[int]) -> list[int]:
    """Number of blocks of each size that hide ``hidden`` cells in total; the last size is 1.

    Each size hides about the same number of cells.
    """
    counts: list[int] = []
    left = hidden
    for size in sizes[:-1]:
        counts.append(min(round(hidden / len(sizes) / size), left // size))
        left -= counts[-1] * size
    return [*counts, left]


def sample_hidden(
    scores: Sequence[torch.Tensor], covers: Sequence[torch.Tensor], counts: Sequence[int]
) -> torch.Tensor:
    """Sample hidden cells, (n, cells) of 0 and 1: ``counts`` disjoint blocks of each size.

    ``scores`` (n, places) of each size: a place is sampled with probability softmax(score) among
    the free ones (Gumbel-max), with the straight-through gradient of that softmax.
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


def assign_angles(scores: torch.Tensor, max_angle: float) -> torch.Tensor:
    """Angles of the shape of ``scores``, evenly spaced in (-max_angle, max_angle), in radians.

    The order of the angles is that of scores plus normal noise; the set of angles does not depend
    on the scores. The gradient is straight-through.
    """
    noisy = (scores + torch.randn_like(scores)).flatten()
    rank = noisy.argsort().argsort()
    angles = (2 * (rank + 0.5) / max(1, len(rank)) - 1) * max_angle
    return (angles + max_angle * (noisy - noisy.detach())).view(scores.shape)


class ANet(nn.Module):
    """Makes hard samples of one modality; base class for features and pictures."""

    def __init__(
        self, covers: Sequence[torch.Tensor], hidden: int, rotations: int, max_angle: float
    ):
        super().__init__()
        for place, cover in enumerate(covers):
            self.register_buffer(f"cover{place}", cover, persistent=False)
        self.sizes = len(covers)
        self.counts = blocks_per_size(hidden, [int(cover[0].sum()) for cover in covers])
        self.rotations, self.max_angle = rotations, max_angle

    def forward(
        self, inputs: torch.Tensor, learned: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs (n, d) -> hard samples (n, d), hidden cells (n, cells), angles (n, rotations).

        If not ``learned``, all scores are 0: cells and angles are random.
        """
        covers = [self.get_buffer(f"cover{place}") for place in range(self.sizes)]
        widths = [*(len(cover) for cover in covers), self.rotations]
        if learned:
            scores = MAX_SCORE * torch.tanh(self.scores(inputs) / MAX_SCORE)
        else:
            scores = inputs.new_zeros(len(inputs), sum(widths), dtype=torch.float32)
        *places, rotations = scores.split(widths, dim=1)
        hidden = sample_hidden(places, covers, self.counts)
        angles = assign_angles(rotations, self.max_angle)
        return self.distort(inputs.float(), hidden, angles), hidden, angles

    def scores(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs (n, d) -> scores of all places, size by size, and of the rotations."""
        raise NotImplementedError

    def distort(
        self, inputs: torch.Tensor, hidden: torch.Tensor, angles: torch.Tensor
    ) -> torch.Tensor:
        """Rotate the inputs (n, d), then hide cells."""
        raise NotImplementedError


class FeatureANet(ANet):
    """A-Net of feature vectors: hidden principal components are set to their mean.

    Of C cells, cell c has the components c, c + C, c + 2C, ...: the same number in each cell, with
    about the same variance. Remaining components, and the residual outside of them, are not hidden.
    Rotations are in random planes of two components.
    """

    def __init__(
        self, features: torch.Tensor | RowTensor, area: float, max_angle: float, rotate: bool
    ) -> None:
        some = features[even_choice(len(features), MAX_FIT_ROWS)].float()
        size = min(MAX_COMPONENTS, *some.shape)
        cells = min(range(MAX_CELLS, MAX_CELLS // 2, -1), key=lambda cells: size % cells)
        cells = min(size, cells)
        covers = [run_covers(cells, length, wrap=True) for length in (8, 4, 1) if length <= cells]
        hidden = int(area * size) // (size // cells)
        groups = min(MAX_ROTATION_GROUPS, size // 2) if rotate else 0
        super().__init__(covers, hidden, groups, max_angle)
        self.length = size // cells
        self.register_buffer("mean", some.mean(0))
        _, _, directions = torch.svd_lowrank(some - some.mean(0), size, niter=4)
        self.register_buffer("directions", directions)
        self.register_buffer("planes", torch.randperm(size))
        dim = features.shape[1]
        self.net = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 128), nn.GELU())
        self.last = _zero_initialised(nn.Linear(128, sum(map(len, covers)) + self.rotations))

    def scores(self, inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.net(inputs.float()))
        return out

    def distort(
        self, inputs: torch.Tensor, hidden: torch.Tensor, angles: torch.Tensor
    ) -> torch.Tensor:
        directions = self.get_buffer("directions")
        before = (inputs - self.get_buffer("mean")) @ directions
        after = before
        if self.rotations:
            planes = self.get_buffer("planes")
            half = len(planes) // 2
            one, other, rest = before[:, planes].split([half, half, len(planes) - 2 * half], dim=1)
            angle = angles[:, torch.arange(half, device=angles.device) * self.rotations // half]
            cos, sin = angle.cos(), angle.sin()
            rotated = [cos * one - sin * other, sin * one + cos * other, rest]
            after = torch.cat(rotated, dim=1)[:, planes.argsort()]
        mask = hidden.repeat(1, self.length)
        mask = functional.pad(mask, (0, before.shape[1] - mask.shape[1]))
        return inputs + ((1 - mask) * after - before) @ directions.T


class PixelANet(ANet):
    """A-Net of flat pictures of 64 x 64 pixels: cells of 8 x 8 pixels, rotation of the picture.

    Hidden cells have the mean colour of the picture; the rotation repeats the pixels of the edge.
    """

    def __init__(self, area: float, max_angle: float) -> None:
        self.lengths = (3, 2, 1)
        covers = [square_covers(CELLS_PER_SIDE, length) for length in self.lengths]
        super().__init__(covers, int(area * CELLS_PER_SIDE**2), 1, max_angle)
        self.net = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(3, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
        )
        self.places = _zero_initialised(nn.Conv2d(64, len(covers), 1))
        self.rotation = _zero_initialised(nn.Linear(64, 1))

    def scores(self, inputs: torch.Tensor) -> torch.Tensor:
        maps = self.net(_pictures(inputs.float()) / 127.5 - 1)
        places = [
            functional.avg_pool2d(part, length, stride=1).flatten(1)
            for part, length in zip(self.places(maps).split(1, dim=1), self.lengths, strict=True)
        ]
        return torch.cat([*places, self.rotation(maps.mean((2, 3)))], dim=1)

    def distort(
        self, inputs: torch.Tensor, hidden: torch.Tensor, angles: torch.Tensor
    ) -> torch.Tensor:
        pictures = _pictures(inputs)
        cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero], dim=2).view(-1, 2, 3)
        grid = functional.affine_grid(rotation, list(pictures.shape), align_corners=False)
        rotated = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
        mask = hidden.view(-1, 1, CELLS_PER_SIDE, CELLS_PER_SIDE)
        mask = functional.interpolate(mask, scale_factor=PIXELS // CELLS_PER_SIDE)
        covered = (1 - mask) * rotated + mask * pictures.mean((2, 3), keepdim=True)
        return covered.permute(0, 2, 3, 1).flatten(1)


class ANets(nn.Module):
    """A-Net of each modality."""

    def __init__(self, data: TrainingData, config: Config) -> None:
        super().__init__()
        max_angle, train = math.radians(config.angle), data.train
        self.image: ANet
        if data.raw_images:
            self.image = PixelANet(config.area, max_angle)
        else:
            self.image = FeatureANet(train.image, config.area, max_angle, rotate=True)
        self.text: ANet = FeatureANet(train.text, config.area, max_angle, rotate=False)

    def net(self, modality: Modality) -> ANet:
        """Return A-Net of one modality."""
        return self.image if modality == "image" else self.text


class HNet(nn.Module):
    """The towers, and an exponential moving average of them without gradients."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.towers = towers
        self.average = copy.deepcopy(towers).requires_grad_(False).eval()

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """average <- decay * average + (1 - decay) * towers."""
        current = self.towers.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1 - decay)
            else:  # the batch counter of batch normalisation
                value.copy_(current[name])


def _pictures(flat: torch.Tensor) -> torch.Tensor:
    return flat.view(-1, PIXELS, PIXELS, 3).permute(0, 3, 1, 2)


def _zero_initialised(layer: nn.Module) -> nn.Module:
    """Set all weights to 0: an untrained A-Net is random."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer

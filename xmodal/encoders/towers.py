"""Towers: torch networks from features to relaxed codes, one per modality."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from xmodal.codes import BinaryCodes, check_bits
from xmodal.device import full_float32, mixed_precision
from xmodal.errors import ConfigError
from xmodal.modality import Modality

Kind = Literal["practical", "released", "linear", "residual"]


class SmallCNN(nn.Module):
    """A small convolutional network on 64 x 64 pixels, trained with its tower.

    Two channels with the pixel coordinates are added, so that positions can be learned. Training is
    in mixed precision if the device supports it; codes are always computed in float32.
    """

    dim = 256

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3 + 2
        for after, stride in ((32, 2), (64, 2), (96, 2), (128, 2), (128, 1)):
            convolution = nn.Conv2d(width, after, 3, stride=stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
            width = after
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.last = nn.Linear(2 * width, self.dim)
        line = torch.linspace(-1, 1, 64)
        grid = torch.stack(torch.meshgrid(line, line, indexing="ij"))
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Flat uint8 pixels (n, 64 * 64 * 3) -> (n, 256)."""
        squares = pixels.view(-1, 64, 64, 3).permute(0, 3, 1, 2).float() / 127.5 - 1
        # shape, not len: the ONNX export then has a dynamic batch size.
        grid = self.get_buffer("grid").expand(squares.shape[0], -1, -1, -1)
        stacked = torch.cat([squares, grid], dim=1)
        with mixed_precision(pixels.device, self.training):
            maps = self.layers(stacked.contiguous(memory_format=torch.channels_last)).float()
        out: torch.Tensor = self.last(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1))
        return out


class Thumbnail(nn.Module):
    """Pictures at 16 x 16 pixels, flat, in [0, 1]: features without training."""

    size = 16
    dim = 3 * size * size

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Flat uint8 pixels (n, 64 * 64 * 3) -> (n, 3 * 16 * 16), channel by channel."""
        squares = pixels.view(-1, 64, 64, 3).permute(0, 3, 1, 2).float() / 255
        return functional.adaptive_avg_pool2d(squares, self.size).flatten(1)


class Tower(nn.Module):
    """LayerNorm -> linear -> GELU -> linear -> tanh: relaxed codes in (-1, 1).

    ``stem`` is the identity for features, a :class:`SmallCNN` for raw pixels. ``dropout``: dropout
    rate of the outputs of the stem.
    """

    def __init__(
        self, dim: int, bits: int, *, hidden: int, raw: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.stem: nn.Module = SmallCNN() if raw else nn.Identity()
        self.width = SmallCNN.dim if raw else dim
        self.head = nn.Sequential(
            nn.LayerNorm(self.width),
            nn.Dropout(dropout),
            nn.Linear(self.width, hidden),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, check_bits(bits)),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, dim) -> relaxed codes (n, bits)."""
        return torch.tanh(self.outputs(features))

    def outputs(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, dim) -> outputs (n, bits): the relaxed codes before tanh."""
        out: torch.Tensor = self.head(self.vectors(features))
        return out

    def vectors(self, features: torch.Tensor) -> torch.Tensor:
        """Inputs of the head, (n, width) float32."""
        out: torch.Tensor = self.stem(features)
        return out.float()


class ReleasedTower(Tower):
    """linear -> tanh -> linear -> z, as the authors of SCH-GAN released it.

    Their code is h = sigmoid(z) with bit = h >= 1/2. Here it is 2h - 1 = tanh(z / 2): the same
    bits, and |h - h'|^2 = |u - u'|^2 / 4. Weights: truncated normal, std .1; biases 0.
    """

    def __init__(self, dim: int, bits: int, *, hidden: int) -> None:
        nn.Module.__init__(self)
        self.stem = nn.Identity()
        self.width = dim
        self.head = nn.Sequential(
            nn.Linear(dim, hidden), nn.Tanh(), nn.Linear(hidden, check_bits(bits))
        )
        for layer in (self.head[0], self.head[2]):
            init_released(layer)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, dim) -> relaxed codes (n, bits)."""
        return self.codes(self.units(features))

    def outputs(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, dim) -> outputs z / 2, (n, bits)."""
        out: torch.Tensor = self.head[2](self.units(features)) / 2
        return out

    def units(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, dim) -> hidden units tanh(W1 x + b1), (n, hidden)."""
        out: torch.Tensor = self.head[:2](self.vectors(features))
        return out

    def codes(self, units: torch.Tensor) -> torch.Tensor:
        """Hidden units (n, hidden) -> relaxed codes (n, bits)."""
        return torch.tanh(self.head[2](units) / 2)


class LinearTower(Tower):
    """linear -> tanh: bit = Wx + c > 0; for pixels x is their :class:`Thumbnail`."""

    def __init__(self, dim: int, bits: int, *, raw: bool = False) -> None:
        nn.Module.__init__(self)
        self.stem = Thumbnail() if raw else nn.Identity()
        self.width = Thumbnail.dim if raw else dim
        self.head = nn.Sequential(nn.Linear(self.width, check_bits(bits)))


class ResidualHead(nn.Module):
    """linear(x) + mlp(x), where the last layer of the perceptron begins at zero.

    mlp: LayerNorm -> dropout -> linear -> GELU -> dropout -> linear. Before training the head is
    its linear map, which can be the solution of a linear model.
    """

    def __init__(self, width: int, bits: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, bits)
        last = nn.Linear(hidden, bits)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Dropout(dropout),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            last,
        )

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors (n, width) -> outputs (n, bits)."""
        out: torch.Tensor = self.linear(vectors) + self.mlp(vectors)
        return out


class ResidualTower(Tower):
    """:class:`ResidualHead` -> tanh, for features or for the outputs of a :class:`SmallCNN`."""

    def __init__(
        self, dim: int, bits: int, *, hidden: int, raw: bool = False, dropout: float = 0.0
    ) -> None:
        nn.Module.__init__(self)
        self.stem = SmallCNN() if raw else nn.Identity()
        self.width = SmallCNN.dim if raw else dim
        self.head = nn.Sequential(ResidualHead(self.width, check_bits(bits), hidden, dropout))


def linear_map(tower: Tower) -> nn.Linear:
    """Return the linear map of a residual tower."""
    head = tower.head[0]
    assert isinstance(head, ResidualHead)
    return head.linear


def init_released(layer: nn.Module) -> None:
    """Initialise a linear layer: weights normal with std .1, truncated at two std; biases 0."""
    nn.init.trunc_normal_(layer.get_parameter("weight"), std=0.1, a=-0.2, b=0.2)
    nn.init.zeros_(layer.get_parameter("bias"))


class SplitRows(Protocol):
    """A matrix (n, dim) that is read in batches of rows, as a tensor is."""

    def split(self, size: int) -> Iterable[torch.Tensor]:
        """Yield all rows, ``size`` at a time."""


class Towers(nn.Module):
    """The hash network: an image tower and a text tower with codes of ``bits`` bits.

    ``kind``: class of the towers. Released and linear towers have no dropout; released towers take
    no pixels and raise ConfigError for them.
    """

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        bits: int,
        *,
        hidden: int = 1024,
        raw_images: bool = False,
        dropout: float = 0.0,
        kind: Kind = "practical",
    ) -> None:
        super().__init__()
        self.bits = bits
        self.shape: dict[str, Any] = {
            "image_dim": image_dim,
            "text_dim": text_dim,
            "bits": bits,
            "hidden": hidden,
            "raw_images": raw_images,
            "kind": kind,
        }
        self.image: Tower
        self.text: Tower
        if raw_images and kind == "released":
            raise ConfigError(
                "released towers take feature vectors, not pixels: choose another "
                "--image-backbone, or --method schgan"
            )
        if kind == "residual":
            self.image = ResidualTower(
                image_dim, bits, hidden=hidden, raw=raw_images, dropout=dropout
            )
            self.text = ResidualTower(text_dim, bits, hidden=hidden, dropout=dropout)
        elif kind == "linear":
            self.image = LinearTower(image_dim, bits, raw=raw_images)
            self.text = LinearTower(text_dim, bits)
        elif kind == "released":
            self.image = ReleasedTower(image_dim, bits, hidden=hidden)
            self.text = ReleasedTower(text_dim, bits, hidden=hidden)
        else:
            self.image = Tower(image_dim, bits, hidden=hidden, raw=raw_images, dropout=dropout)
            self.text = Tower(text_dim, bits, hidden=hidden, dropout=dropout)

    def prefix(self, bits: int) -> Towers:
        """Return towers whose codes are the first ``bits`` bits of these.

        Raises ConfigError for more bits than there are, CodeError for no multiple of 8.
        """
        if check_bits(bits) > self.bits:
            raise ConfigError(f"there are {self.bits} bits, the first {bits} were asked for")
        shorter = Towers(**self.shape | {"bits": bits})
        # The width decides the shape of the last layers alone, whose rows are bits.
        wanted = {
            name: len(tensor) for name, tensor in shorter.state_dict().items() if tensor.dim()
        }
        shorter.load_state_dict(
            {
                name: tensor[: wanted[name]].clone() if name in wanted else tensor
                for name, tensor in self.state_dict().items()
            }
        )
        return shorter.to(next(self.parameters()).device)

    def tower(self, modality: Modality) -> Tower:
        """Return the tower of one modality."""
        return self.image if modality == "image" else self.text

    def codes(self, modality: Modality, features: SplitRows, batch: int = 1024) -> BinaryCodes:
        """Return the binary codes of features (n, dim), computed in evaluation mode."""
        parts = [
            BinaryCodes.from_relaxed(part) for part in self._evaluated(modality, features, batch)
        ]
        return BinaryCodes.concatenate(parts) if parts else BinaryCodes.empty(self.bits)

    def outputs(
        self, modality: Modality, features: SplitRows, batch: int = 1024
    ) -> npt.NDArray[np.float32]:
        """Return the outputs (n, bits) of features (n, dim), computed in evaluation mode.

        They are the relaxed codes before tanh.
        """
        parts = list(self._evaluated(modality, features, batch))
        return np.concatenate(parts) if parts else np.zeros((0, self.bits), np.float32)

    def _evaluated(
        self, modality: Modality, features: SplitRows, batch: int
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the outputs of batches of features."""
        was_training = self.training
        self.eval()
        device = next(self.parameters()).device
        for part in features.split(batch):
            with full_float32(), torch.inference_mode():
                outputs = self.tower(modality).outputs(part.to(device)).cpu().numpy()
            yield outputs
        self.train(was_training)

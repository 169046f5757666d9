"""torch helpers of the backbones: scaling of pixels, and networks with numpy inputs and outputs."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from xmodal.data.preprocessing import Preprocessing
from xmodal.device import device, full_float32


class PixelNetwork(nn.Module):
    """Scaling of pixels followed by a network, in the precision of the module."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network, self.bgr = network, preprocessing.bgr
        self.register_buffer("mean", torch.tensor(preprocessing.mean))
        self.register_buffer("std", torch.tensor(preprocessing.std))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Shape (b, size, size, 3) uint8 -> (b, dim)."""
        out: torch.Tensor = self.network(self.scaled(pixels))
        return out.flatten(1)

    def scaled(self, pixels: torch.Tensor) -> torch.Tensor:
        """Shape (b, size, size, 3) uint8 -> (b, 3, size, size), channels last in memory."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        if self.bgr:
            pixels = pixels.flip(3)
        scaled = (pixels.to(mean.dtype) / 255 - mean) / std
        return scaled.permute(0, 3, 1, 2)


def with_preprocessing(
    fingerprint: str, preprocessing: Preprocessing, earlier: Preprocessing | None
) -> str:
    """Return the fingerprint, with a hash of the preprocessing if earlier versions had another."""
    if preprocessing == earlier:
        return fingerprint
    return (
        f"{fingerprint}-{hashlib.blake2b(str(preprocessing).encode(), digest_size=4).hexdigest()}"
    )


@torch.inference_mode()
def run(network: nn.Module, *inputs: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return the output of a network as a float32 array."""
    with full_float32():
        out: torch.Tensor = network(*(one.to(device()) for one in inputs))
    return np.asarray(out.float().cpu().numpy())

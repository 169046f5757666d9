"""What tests of pretrained backbones share: random squares, and backbones in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
import torch

from xmodal.features.backbones import (
    huggingface,
    load_image_backbone,
    load_text_backbone,
    torchvision_models,
)


def pixels(n: int, size: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random squares (n, size, size, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Cosine of rows."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(-1) / lengths)


def forget() -> None:
    """Load backbones anew from here on."""
    for cache in (load_image_backbone, load_text_backbone, huggingface._load):
        cache.cache_clear()


@contextmanager
def in_float32() -> Iterator[None]:
    """Backbones that are loaded inside compute in float32, whatever the machine can do."""
    forget()
    with pytest.MonkeyPatch.context() as patch:
        for module in (huggingface, torchvision_models):
            patch.setattr(module, "precision", lambda: torch.float32)
        yield
    forget()

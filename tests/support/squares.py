"""Helpers for tests of pretrained backbones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xmodal.features.backbones import huggingface, load_image_backbone, load_text_backbone


def pixels(n: int, size: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random squares (n, size, size, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Cosine similarity of rows."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(-1) / lengths)


def clear_backbones() -> None:
    """Clear the caches of loaded backbones."""
    for cache in (load_image_backbone, load_text_backbone, huggingface._load):
        cache.cache_clear()

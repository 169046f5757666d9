"""What tests of pretrained backbones share: random squares, and backbones in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from xmodal.backbones import hub, load_image_backbone, load_text_backbone, vision


def pixels(n: int, size: int, seed: int = 0) -> torch.Tensor:
    """Random squares (n, size, size, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, size, size, 3), generator=generator, dtype=torch.uint8)


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosine of rows."""
    return torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=-1)


def forget() -> None:
    """Load backbones anew from here on."""
    for cache in (load_image_backbone, load_text_backbone, hub._load):
        cache.cache_clear()


@contextmanager
def in_float32() -> Iterator[None]:
    """Backbones that are loaded inside compute in float32, whatever the machine can do."""
    forget()
    with pytest.MonkeyPatch.context() as patch:
        for module in (hub, vision):
            patch.setattr(module, "precision", lambda: torch.float32)
        yield
    forget()

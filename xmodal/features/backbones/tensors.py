"""Tensors of a weights file (torch)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name. Raises ValueError if it has others, or is damaged.

    Files other than safetensors are pickles. torch loads them with ``weights_only``, which makes
    tensors and runs no code.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise ValueError(f"{path.name}: {' '.join(str(error).split())[:100]}") from None
    if not isinstance(found, dict) or not all(isinstance(x, torch.Tensor) for x in found.values()):
        raise ValueError(f"{path.name} holds something else than named tensors")
    return found

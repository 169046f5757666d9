"""Where networks run, and in what precision."""

from __future__ import annotations

import os
from functools import cache

import torch


@cache
def device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU; the environment variable XMODAL_DEVICE decides."""
    wanted = os.environ.get("XMODAL_DEVICE")
    if wanted:
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@cache
def precision() -> torch.dtype:
    """bfloat16 where the device computes in it natively, else float32."""
    where = device()
    if where.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if where.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


def batch_size() -> int:
    """How many pictures at a time keep the device busy; of texts, which are smaller, twice that."""
    return {"cuda": 256, "mps": 128}.get(device().type, 32)


def mixed(where: torch.device, wanted: bool = True) -> torch.autocast:
    """Inside, layers compute in bfloat16 if that is ``wanted`` and the machine's precision."""
    on = wanted and precision() == torch.bfloat16
    return torch.autocast(where.type, torch.bfloat16, enabled=on)

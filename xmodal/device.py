"""Device and number format of everything that torch computes.

Backbones compute in float32 unless their model was trained with another precision, so a code does
not depend on the processor. Only the training of small networks uses what the processor has.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from xmodal.config import Precision

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@cache
def device() -> torch.device:
    """The device that XMODAL_DEVICE names; without it CUDA, else Apple's MPS, else the CPU."""
    named = os.environ.get("XMODAL_DEVICE")
    if named:
        return torch.device(named)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_bfloat16() -> bool:
    """Whether the device has instructions for bfloat16."""
    if device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device().type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def batch_size() -> int:
    """Number of pictures in a batch of a backbone; batches of texts are twice as large."""
    return {"cuda": 256, "mps": 128}.get(device().type, 32)


def mixed(where: torch.device, wanted: bool = True) -> torch.autocast:
    """Context in which layers compute in bfloat16, if ``wanted`` and the device supports it.

    For training only: weights are part of a model's fingerprint, its codes are made in float32.
    """
    return torch.autocast(where.type, torch.bfloat16, enabled=wanted and has_bfloat16())


def full_float32() -> AbstractContextManager[None]:
    """Context in which CUDA convolutions keep all bits of float32; by default they use TF32."""
    if device().type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def with_precision(fingerprint: str, precision: Precision) -> str:
    """The fingerprint, followed by the precision unless that is float32."""
    return fingerprint if precision == "float32" else f"{fingerprint}-{precision}"

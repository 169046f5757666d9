"""Device and precision of torch.

Backbones compute in float32 unless their encoder was trained with another precision, so a code does
not depend on the processor. Only the training of small networks uses bfloat16 where available.
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
    """Return the device $XMODAL_DEVICE; by default CUDA, else Apple's MPS, else the CPU."""
    configured = os.environ.get("XMODAL_DEVICE")
    if configured:
        return torch.device(configured)
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
    """Return the batch size of image backbones; that of text backbones is twice as large."""
    return {"cuda": 256, "mps": 128}.get(device().type, 32)


def mixed_precision(on: torch.device, enabled: bool = True) -> torch.autocast:
    """Context in which layers compute in bfloat16, if ``enabled`` and the device supports it.

    For training only: codes are computed in float32.
    """
    return torch.autocast(on.type, torch.bfloat16, enabled=enabled and has_bfloat16())


def full_float32() -> AbstractContextManager[None]:
    """Context in which CUDA convolutions compute in float32; the default of torch is TF32."""
    if device().type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def with_precision(fingerprint: str, precision: Precision) -> str:
    """Return the fingerprint, followed by the precision unless that is float32."""
    return fingerprint if precision == "float32" else f"{fingerprint}-{precision}"

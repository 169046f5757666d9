"""Backbones with changed weights, which fine-tuning made (torch)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from xmodal.errors import ModelError
from xmodal.features.backbones.blocks import with_tensors

B = TypeVar("B")
CHANGED = "-changed-"
"""Part of the fingerprint of a backbone with changed weights, followed by their hash."""


def plain_network(backbone: Any) -> nn.Module:
    """Return the network of a backbone before its layers are fused; it shares its tensors.

    Raises ModelError for a backbone whose weights cannot be changed.
    """
    plain = getattr(backbone, "plain", None)
    network = plain() if plain is not None else getattr(backbone, "network", None)
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"the backbone {backbone.spec!r} has no weights that can be trained further: leave it "
            "out of --fine-tune"
        )
    return network


def with_changed(backbone: B, tensors: Mapping[str, torch.Tensor]) -> B:
    """Return a backbone with other weights of these names, and with a fingerprint of its own.

    It shares all other weights. Raises ModelError if the weights are those of another network.
    """
    source: Any = backbone
    network = with_tensors(plain_network(source), tensors).eval()
    fuse = getattr(source, "fused", None)
    changed = copy.copy(source)
    changed.network = network if fuse is None else fuse(network)
    changed.fingerprint = changed_fingerprint(source.fingerprint, tensors)
    changed.space = None
    return changed  # type: ignore[no-any-return]


def changed_fingerprint(fingerprint: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the fingerprint of a backbone with changed weights; ``fingerprint``: without them."""
    hashed = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        hashed.update(tensor.cpu().contiguous().numpy().tobytes())
    return f"{fingerprint}{CHANGED}{hashed.hexdigest()}"


def unchanged_fingerprint(fingerprint: str) -> str:
    """Return the fingerprint of a backbone without its changed weights."""
    return fingerprint.partition(CHANGED)[0]

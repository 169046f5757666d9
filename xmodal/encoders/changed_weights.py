"""File of the weights of backbones that a training has changed (torch).

The names of the tensors begin with the modality of their backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from xmodal.encoders.folder import BACKBONE_WEIGHTS
from xmodal.features.backbones.changed import (
    CHANGED,
    changed_fingerprint,
    unchanged_fingerprint,
)
from xmodal.modality import Modality
from xmodal.writing import write_bytes

Changed = Mapping[Modality, Mapping[str, torch.Tensor]]
"""Changed weights by modality and by their name in the network of the backbone."""


def write_changed(folder: Path, changed: Changed) -> None:
    """Write the changed weights of all backbones."""
    tensors = {
        f"{modality}.{name}": tensor.cpu().contiguous()
        for modality, of_backbone in changed.items()
        for name, tensor in of_backbone.items()
    }
    write_bytes(folder / BACKBONE_WEIGHTS, save(tensors))


def read_changed(folder: Path, fingerprints: Mapping[Modality, str]) -> Changed:
    """Read the changed weights of those backbones whose fingerprint contains their hash.

    Raises ValueError for other weights than those, and the errors of safetensors and OSError.
    """
    named = {modality: one for modality, one in fingerprints.items() if CHANGED in one}
    tensors = load_file(folder / BACKBONE_WEIGHTS) if named else {}
    found: dict[Modality, dict[str, torch.Tensor]] = {}
    for modality, recorded in named.items():
        start = f"{modality}."
        own = {name[len(start) :]: one for name, one in tensors.items() if name.startswith(start)}
        if changed_fingerprint(unchanged_fingerprint(recorded), own) != recorded:
            raise ValueError(f"{BACKBONE_WEIGHTS} has other weights of the {modality} backbone")
        found[modality] = own
    return found

"""Folders of sentence-transformers: pooling, dense layers and limit of tokens (torch).

``modules.json`` lists the steps from a text to its vector. A step is Transformer, Pooling, Dense,
Normalize or Dropout; or the only one is CLIPModel, a CLIP in a folder of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from xmodal.errors import ModelError

FindFile = Callable[[str], Path | None]
"""Returns the local path of a file of a model by its relative name, or None if there is none."""
POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of a pooling's ``config.json``, and the same modes in its newer key ``pooling_mode``."""
ACTIVATIONS = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "Sigmoid": nn.Sigmoid,
}


@dataclass
class SentenceLayout:
    """What ``modules.json`` declares; the defaults are those of a folder without it.

    ``subfolder``: folder of the transformer. ``pooling``: one of the values of ``POOLINGS``.
    ``dense``: layers after the pooling. ``max_tokens``: None for the limit of the tokenizer.
    ``digest``: hash of the files that were read.
    """

    subfolder: str = ""
    pooling: str = "mean"
    dense: nn.Module = field(default_factory=nn.Identity)
    max_tokens: int | None = None
    lower: bool = False
    digest: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether vectors are plain means over the tokens, as without ``modules.json``."""
        return self.pooling == "mean" and isinstance(self.dense, nn.Identity) and not self.lower


def read_layout(spec: str, find: FindFile) -> SentenceLayout:
    """Read the layout of a model; raise ModelError for a step that is not supported."""
    modules = find("modules.json")
    layout = SentenceLayout()
    if modules is None:
        return layout
    hashed = hashlib.blake2b(digest_size=4)
    dense: list[nn.Module] = []
    try:
        for module in json.loads(modules.read_text(encoding="utf-8")):
            kind, path = str(module["type"]).rpartition(".")[2], str(module["path"])
            prefix = f"{path}/" if path else ""
            if kind in ("Transformer", "CLIPModel"):
                layout.subfolder = path
                _read_limits(layout, find, prefix)
            elif kind == "Pooling":
                layout.pooling = _pooling(_read_json(find, f"{prefix}config.json", hashed), spec)
            elif kind == "Dense":
                dense.append(_dense(find, prefix, hashed, spec))
            elif kind == "Normalize":
                dense += [_Normalize()] if dense else []
            elif kind != "Dropout":
                raise ModelError(
                    f"{spec} has the step {kind} in modules.json, expected Transformer, Pooling, "
                    "Dense and Normalize, or CLIPModel: choose another backbone"
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"modules.json of {spec} cannot be used: {reason}") from None
    if dense and not all(isinstance(one, _Normalize) for one in dense):
        layout.dense = nn.Sequential(*dense)
    hashed.update(f"{layout.pooling} {layout.lower}".encode())
    layout.digest = hashed.hexdigest()
    return layout


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Return one vector of the states of tokens: (b, tokens, d), mask (b, tokens) -> (b, d)."""
    states, mask = states.float(), mask.float()
    if pooling == "mean":
        weights = mask.unsqueeze(-1)
        mean: torch.Tensor = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        return mean
    if pooling == "max":
        return states.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(1)
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device) * mask
    # The first and the last token of a text, whichever side the padding is on.
    place = positions.argmax(1) if pooling == "lasttoken" else mask.argmax(1)
    return states[torch.arange(len(states), device=states.device), place]


class _Normalize(nn.Module):
    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(b, d) -> rows of length 1."""
        return nn.functional.normalize(vectors, dim=1)


def _read_json(find: FindFile, name: str, hashed: Any = None) -> dict[str, Any]:
    """Read a JSON object; an empty one if the file is missing."""
    path = find(name)
    if path is None:
        return {}
    content = path.read_bytes()
    if hashed is not None:
        hashed.update(content)
    return dict(json.loads(content))


def _read_limits(layout: SentenceLayout, find: FindFile, prefix: str) -> None:
    config = _read_json(find, f"{prefix}sentence_bert_config.json")
    limit = config.get("max_seq_length")
    layout.max_tokens = int(limit) if limit else None
    layout.lower = bool(config.get("do_lower_case", False))


def _pooling(config: dict[str, Any], spec: str) -> str:
    """Return the pooling that a ``config.json`` declares."""
    chosen = [mode for key, mode in POOLINGS.items() if config.get(key)]
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        chosen = [modes] if isinstance(modes, str) else list(modes)
    others = [k for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
    unknown = set(chosen) - set(POOLINGS.values()) or set(others) - set(POOLINGS)
    if len(chosen) != 1 or unknown:
        raise ModelError(
            f"{spec} pools tokens by {', '.join(chosen or others) or 'nothing'}, expected one of "
            f"{', '.join(POOLINGS.values())}: choose another backbone"
        )
    return chosen[0]


def _dense(find: FindFile, prefix: str, hashed: Any, spec: str) -> nn.Module:
    config = _read_json(find, f"{prefix}config.json", hashed)
    weights = find(f"{prefix}model.safetensors")
    if weights is None:
        raise ModelError(f"{spec} has no {prefix}model.safetensors, expected the dense layer")
    hashed.update(weights.read_bytes())
    layer = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    state = {name.removeprefix("linear."): value for name, value in load_file(weights).items()}
    try:
        layer.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    name = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise ModelError(
            f"{spec} has a dense layer with {name}, expected one of {', '.join(ACTIVATIONS)}"
        )
    return nn.Sequential(layer, ACTIVATIONS[name]())

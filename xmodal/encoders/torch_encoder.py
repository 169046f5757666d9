"""A trained encoder: two towers and the backbones in front of them, kept in a folder.

    config.json           what it is: backbones, towers, method, settings, data, confidence, figures
    weights.safetensors   the towers (a raw backbone's network is part of its tower)
    history.jsonl         losses and validation mAP of each epoch
    split.json            the ids it was trained on, chosen by, and must be asked with

Pretrained backbones are named, not copied; their fingerprints are checked when they are loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from xmodal.config import PRECISIONS, Precision
from xmodal.data.dataset import Problems, Progress
from xmodal.device import device, with_precision
from xmodal.encoders.calibration import Confidence
from xmodal.encoders.encoder import Encoded, Encoder
from xmodal.encoders.folder import (
    DAMAGED_WEIGHTS,
    DIGEST,
    FILES,
    SPLIT,
    WEIGHTS,
    check_config,
    check_file,
    damaged,
    file_record,
    read_config,
    read_curve,
    read_split,
    write_bytes,
    write_config,
    write_json,
)
from xmodal.encoders.towers import Towers
from xmodal.errors import ModelError
from xmodal.features.backbones import (
    ImageBackbone,
    TextBackbone,
    load_image_backbone,
    load_text_backbone,
)
from xmodal.features.extract import Array, image_features, text_features
from xmodal.modality import MODALITIES, Modality

FORMAT = 1


@dataclass(frozen=True)
class BackboneRef:
    """Which backbone a tower was trained behind: how it was named, and what it was."""

    spec: str
    fingerprint: str


@dataclass
class TrainedEncoder(Encoder):
    """The encoder that :func:`xmodal.train` makes; torch computes its codes.

    ``precision``: number format of the backbones, whatever the processor has; the towers compute in
    float32.
    """

    towers: Towers
    backbones: Mapping[Modality, BackboneRef]
    confidence: Confidence
    about: dict[str, Any] = field(default_factory=dict)
    split: Mapping[str, Sequence[str]] = field(default_factory=dict)
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        self.towers.to(device()).eval()

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return self.towers.bits

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and backbones, followed by the precision unless that is float32.

        The device is not part of it: an index built on a GPU can be searched from a laptop. At
        least 99.9 % of the bits are equal there; others have a relaxed value of almost zero.
        """
        hashed = hashlib.blake2b(digest_size=8)
        for side in MODALITIES:
            hashed.update(self.backbones[side].fingerprint.encode() + b"\0")
        for name, tensor in sorted(self.towers.state_dict().items()):
            hashed.update(f"{name} {tuple(tensor.shape)}\0".encode())
            hashed.update(tensor.cpu().contiguous().numpy().tobytes())
        return with_precision(hashed.hexdigest(), self.precision)

    @cached_property
    def image_backbone(self) -> ImageBackbone:
        """Loaded when the first picture comes. Raises ModelError if it is not the same."""
        loaded = load_image_backbone(self.backbones["image"].spec, precision=self.precision)
        self._check("image", loaded.fingerprint)
        return loaded

    @cached_property
    def text_backbone(self) -> TextBackbone:
        """Loaded when the first text comes. Raises ModelError if it is not the same."""
        loaded = load_text_backbone(self.backbones["text"].spec, precision=self.precision)
        self._check("text", loaded.fingerprint)
        return loaded

    @property
    def shared_space(self) -> bool:
        """Whether both backbones are sides of one model."""
        spaces = self.image_backbone.space, self.text_backbone.space
        return spaces[0] is not None and spaces[0] == spaces[1]

    def encode(
        self,
        side: Modality,
        sources: Sequence[Any],
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> Encoded:
        """Codes by backbone and tower; see :meth:`xmodal.Encoder.encode`."""
        work = {"cache": cache, "problems": problems, "progress": progress}
        features, usable = (
            image_features(self.image_backbone, sources, **work)  # type: ignore[arg-type]
            if side == "image"
            else text_features(self.text_backbone, sources, **work)  # type: ignore[arg-type]
        )
        return Encoded(self.towers.codes(side, as_tensor(features)), usable, features)

    def save(self, folder: str | Path) -> None:
        """Write the folder; ``config.json`` comes last, so a folder that has it is complete."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        weights = {k: v.cpu().contiguous() for k, v in self.towers.state_dict().items()}
        # save_file of safetensors makes a file that only its owner can read.
        write_bytes(path / WEIGHTS, save(weights))
        write_json(path / SPLIT, {role: list(ids) for role, ids in self.split.items()})
        curve = self.confidence
        config = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "precision": self.precision,
            "towers": self.towers.shape,
            "backbones": {side: vars(ref) for side, ref in self.backbones.items()},
            "confidence": {"slope": curve.slope, "offset": curve.offset},
            FILES: {WEIGHTS: file_record(path / WEIGHTS)},
            **self.about,
        }
        write_config(path, config)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        image_backbone: str | None = None,
        text_backbone: str | None = None,
    ) -> TrainedEncoder:
        """The encoder in ``folder``; a backbone that moved can be named anew.

        Raises ModelError if there is none, or if its files do not belong together.
        """
        path = Path(folder)
        config = read_config(path)
        try:
            found = config["format"]
            if found != FORMAT:
                raise ModelError(
                    f"{path} has format {found}, this version reads {FORMAT}: train again, or use "
                    "the version that wrote it"
                )
            check_config(config)
            for name, record in config.get(FILES, {}).items():
                check_file(path / name, record)
            towers = Towers(**config["towers"])
            towers.load_state_dict(load_file(path / WEIGHTS))
            told = {"image": image_backbone, "text": text_backbone}
            refs = {
                side: BackboneRef(str(told[side] or ref["spec"]), str(ref["fingerprint"]))
                for side, ref in ((side, config["backbones"][side]) for side in MODALITIES)
            }
            curve = read_curve(config["confidence"], towers.bits)
            split = read_split(path)
            written = config["fingerprint"]
            precision = config.get("precision", "float32")  # absent before --precision existed
            if precision not in PRECISIONS:
                raise ValueError(f"precision is {precision!r}")
        except DAMAGED_WEIGHTS as error:
            raise damaged(path, error, "train again") from None
        own = {"format", "fingerprint", "precision", "towers", "backbones", "confidence"}
        own |= {FILES, DIGEST}
        about = {name: value for name, value in config.items() if name not in own}
        encoder = cls(towers, refs, curve, about, split, precision)
        if encoder.fingerprint != written:
            raise ModelError(
                f"the encoder in {path} has fingerprint {encoder.fingerprint}, its config says "
                f"{written}: weights and config do not belong together"
            )
        return encoder

    def _check(self, side: Modality, found: str) -> None:
        ref = self.backbones[side]
        if found != ref.fingerprint:
            raise ModelError(
                f"the {side} backbone {ref.spec!r} is {found}, this encoder was trained behind "
                f"{ref.fingerprint}: bring that one back, or name it with --{side}-backbone"
            )


def as_tensor(features: Array) -> torch.Tensor:
    """Pixels stay bytes; features become float32."""
    kept = features if features.dtype == np.uint8 else features.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(kept))

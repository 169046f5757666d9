"""An encoder: two trained towers and the backbones in front of them, kept in a folder.

    config.json           what it is: backbones, towers, method, settings, data, confidence, figures
    weights.safetensors   the towers (a raw backbone's network is part of its tower)
    history.jsonl         losses and validation mAP of each epoch
    split.json            the ids it was trained on, chosen by, and must be asked with

Pretrained backbones are named, not copied; their fingerprints are checked when they are loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from xmodal.backbones import (
    ImageBackbone,
    TextBackbone,
    load_image_backbone,
    load_text_backbone,
)
from xmodal.codes import BinaryCodes
from xmodal.confidence import Confidence
from xmodal.data import Dataset, Problems
from xmodal.device import device
from xmodal.errors import CodeError, ModelError
from xmodal.features import Array, Progress, image_features, text_features
from xmodal.images import Source
from xmodal.index import MODALITIES, Addition, Modality
from xmodal.towers import Towers

CONFIG, WEIGHTS, SPLIT = "config.json", "weights.safetensors", "split.json"
FORMAT = 1
DAMAGE = (
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    OSError,
    RuntimeError,
    CodeError,
    SafetensorError,
)
"""What reading a file that is not as it was written may raise."""


@dataclass(frozen=True)
class BackboneRef:
    """Which backbone a tower was trained behind: how it was named, and what it was."""

    spec: str
    fingerprint: str


@dataclass
class Encoder:
    """Turns pictures and sentences into codes; made by :func:`xmodal.train` or ``Encoder.load``.

    ``about`` holds what a person may want to know: method, settings, data, figures.
    """

    towers: Towers
    backbones: Mapping[Modality, BackboneRef]
    confidence: Confidence
    about: dict[str, Any] = field(default_factory=dict)
    split: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.towers.to(device()).eval()

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return self.towers.bits

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: a hash of the weights and of everything else that decides a code.

        Left out on purpose: the device and its precision, so that an index built on a GPU can be
        asked from a laptop (a bit may differ where a relaxed value is almost zero).
        """
        hashed = hashlib.blake2b(digest_size=8)
        for side in MODALITIES:
            hashed.update(self.backbones[side].fingerprint.encode() + b"\0")
        for name, tensor in sorted(self.towers.state_dict().items()):
            hashed.update(f"{name} {tuple(tensor.shape)}\0".encode())
            hashed.update(tensor.cpu().contiguous().numpy().tobytes())
        return hashed.hexdigest()

    @cached_property
    def image_backbone(self) -> ImageBackbone:
        """Loaded when the first picture comes. Raises ModelError if it is not the same."""
        loaded = load_image_backbone(self.backbones["image"].spec)
        self._check("image", loaded.fingerprint)
        return loaded

    @cached_property
    def text_backbone(self) -> TextBackbone:
        """Loaded when the first text comes. Raises ModelError if it is not the same."""
        loaded = load_text_backbone(self.backbones["text"].spec)
        self._check("text", loaded.fingerprint)
        return loaded

    def encode_images(self, images: Sequence[Source], *, cache: Path | None = None) -> BinaryCodes:
        """Codes of ``n`` pictures (paths, bytes or PIL images). Raises DataError for a bad one."""
        features, _ = image_features(self.image_backbone, images, cache=cache)
        return self.encode_features("image", features)

    def encode_texts(self, texts: Sequence[str], *, cache: Path | None = None) -> BinaryCodes:
        """Codes of ``n`` texts. Raises DataError for one in which there is nothing to read."""
        features, _ = text_features(self.text_backbone, texts, cache=cache)
        return self.encode_features("text", features)

    def encode_features(self, side: Modality, features: Array) -> BinaryCodes:
        """Codes of features (n, dim) that the backbone of ``side`` made."""
        return self.towers.codes(side, as_tensor(features))

    def encode_data(
        self,
        data: Dataset,
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> dict[Modality, tuple[list[str], BinaryCodes]]:
        """Ids and codes of all pictures and all texts; what cannot be used goes to ``problems``."""
        noted = problems if problems is not None else data.problems
        out: dict[Modality, tuple[list[str], BinaryCodes]] = {}
        for side in MODALITIES:
            items = [item for item in data if getattr(item, side) is not None]
            if not items:
                out[side] = [], BinaryCodes.empty(self.bits)
                continue
            sources: list[Any] = [getattr(item, side) for item in items]
            work = {"cache": cache, "problems": noted, "progress": progress}
            features, usable = (
                image_features(self.image_backbone, sources, **work)  # type: ignore[arg-type]
                if side == "image"
                else text_features(self.text_backbone, sources, **work)  # type: ignore[arg-type]
            )
            ids = [item.id for item, good in zip(items, usable, strict=True) if good]
            out[side] = ids, self.encode_features(side, features[usable])
        return out

    def additions(
        self,
        data: Dataset,
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
        size: int = 4096,
    ) -> Iterator[Addition]:
        """``encode_data`` in a form that an index can add, at most ``size`` items at a time.

        Items come grouped by the sides they have, because one addition has one shape.
        """
        codes = self.encode_data(data, cache=cache, progress=progress)
        rows = {side: {id_: row for row, id_ in enumerate(ids)} for side, (ids, _) in codes.items()}
        for sides in (("image", "text"), ("image",), ("text",)):
            items = [i for i in data if tuple(s for s in MODALITIES if i.id in rows[s]) == sides]
            for start in range(0, len(items), size):
                part = items[start : start + size]
                taken = {
                    side: codes[side][1][[rows[side][item.id] for item in part]]
                    if side in sides
                    else None
                    for side in MODALITIES
                }
                yield Addition(
                    [item.id for item in part],
                    taken["image"],
                    taken["text"],
                    [item.document() for item in part],
                )

    def save(self, folder: str | Path) -> None:
        """Write the folder; ``config.json`` comes last, so a folder that has it is complete."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        weights = {k: v.cpu().contiguous() for k, v in self.towers.state_dict().items()}
        save_file(weights, path / WEIGHTS)
        write_json(path / SPLIT, {role: list(ids) for role, ids in self.split.items()})
        curve = self.confidence
        config = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "towers": self.towers.shape,
            "backbones": {side: vars(ref) for side, ref in self.backbones.items()},
            "confidence": {"slope": curve.slope, "offset": curve.offset},
            **self.about,
        }
        write_json(path / CONFIG, config)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        image_backbone: str | None = None,
        text_backbone: str | None = None,
    ) -> Encoder:
        """The encoder in ``folder``; a backbone that moved can be named anew.

        Raises ModelError if there is none, or if its files do not belong together.
        """
        path = Path(folder)
        if not (path / CONFIG).is_file():
            hint = (
                "training there was stopped: run the same xmodal train again to go on"
                if (path / "checkpoint.pt").exists()
                else "make one with xmodal train DATA --out " + str(path)
            )
            raise ModelError(f"there is no finished encoder at {path}: {hint}")
        try:
            config = _read(path / CONFIG)
            found = config["format"]
            if found != FORMAT:
                raise ModelError(
                    f"{path} has format {found}, this version reads {FORMAT}: train again, or use "
                    "the version that wrote it"
                )
            towers = Towers(**config["towers"])
            towers.load_state_dict(load_file(path / WEIGHTS))
            told = {"image": image_backbone, "text": text_backbone}
            refs = {
                side: BackboneRef(str(told[side] or ref["spec"]), str(ref["fingerprint"]))
                for side, ref in ((side, config["backbones"][side]) for side in MODALITIES)
            }
            told_curve = config["confidence"]
            curve = Confidence(float(told_curve["slope"]), float(told_curve["offset"]), towers.bits)
            parts = _read(path / SPLIT) if (path / SPLIT).exists() else {}
            split = {role: list(ids) for role, ids in parts.items()}
            written = config["fingerprint"]
        except DAMAGE as error:
            reason = " ".join(str(error).split())[:160]
            raise ModelError(f"the encoder in {path} is damaged ({reason}): train again") from None
        own = ("format", "fingerprint", "towers", "backbones", "confidence")
        about = {name: value for name, value in config.items() if name not in own}
        encoder = cls(towers, refs, curve, about, split)
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


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a file; after a kill at any moment it is the old one or the new."""
    new = path.with_name(f"{path.name}.new")
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)

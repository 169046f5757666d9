"""Backbones from folders of open_clip (torch), which hold ``open_clip_config.json``."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from xmodal.config import Precision
from xmodal.data.images import Pixels
from xmodal.data.preprocessing import Preprocessing
from xmodal.device import DTYPES, batch_size, device, with_precision
from xmodal.errors import ModelError, require
from xmodal.features.backbones.image_processors import verified
from xmodal.features.backbones.modules import PixelNetwork, run, with_preprocessing
from xmodal.features.known_tokens import KnownTokens
from xmodal.modality import Modality

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def is_open_clip(spec: str) -> bool:
    """Whether ``spec`` is a folder of open_clip that transformers cannot load."""
    folder = Path(spec).expanduser()
    return (folder / CONFIG).is_file() and not _names_type(folder / "config.json")


def _names_type(path: Path) -> bool:
    """Whether a ``config.json`` is one of transformers, which names the type of its model."""
    try:
        return "model_type" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def load(
    spec: str, modality: Modality, precision: Precision, recorded: str | None = None
) -> object:
    """Load a backbone of a folder. Raises ModelError if it is damaged, ExtraMissing without the
    package open_clip. ``recorded``: see :func:`~xmodal.features.backbones.load_image_backbone`.
    """
    require(f"backbone {spec}, a folder of open_clip,", "open-clip")
    model = _load(spec, precision)
    if modality == "text":
        return OpenClipTextBackbone(model)
    return OpenClipImageBackbone(model, recorded)


class OpenClipModel:
    """A loaded model with its tokenizer; ``space`` is equal for both of its backbones."""

    def __init__(self, spec: str, network: Any, tokenizer: Any, fingerprint: str) -> None:
        self.spec, self.network, self.tokenizer = spec, network, tokenizer
        self.fingerprint = self.space = fingerprint


class OpenClipImageBackbone:
    """Image features of an open_clip model."""

    raw = False

    def __init__(self, model: OpenClipModel, recorded: str | None = None) -> None:
        self.spec, self.fingerprint, self.space = model.spec, model.fingerprint, model.space
        self.batch = batch_size()
        earlier = _earlier_preprocessing(model)
        if earlier is not None and recorded == model.fingerprint:
            self.preprocessing = earlier
        else:
            self.preprocessing = _preprocessing(model)
            named = with_preprocessing(model.fingerprint, self.preprocessing, earlier)
            self.fingerprint = named
        dtype = next(model.network.parameters()).dtype
        network = PixelNetwork(_ImageFeatures(model.network), self.preprocessing)
        self.network = network.to(device(), dtype)
        size = self.preprocessing.size
        self.dim = self.forward(np.zeros((1, size, size, 3), np.uint8)).shape[1]

    def forward(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(b, size, size, 3) uint8 -> (b, dim)."""
        return run(self.network, torch.from_numpy(pixels))


class OpenClipTextBackbone:
    """Text features of an open_clip model. It cannot be exported: it has no attribute network."""

    def __init__(self, model: OpenClipModel) -> None:
        self.spec, self.fingerprint, self.space = model.spec, model.fingerprint, model.space
        self.batch = 2 * batch_size()
        self._tokenizer, self._features = model.tokenizer, _TextFeatures(model.network)
        self.dim = self.forward(["a"]).shape[1]

    def forward(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """``b`` texts -> (b, dim)."""
        return run(self._features, self._tokenizer(list(texts)))

    def has_known_token(self, text: str) -> bool:
        """Return whether the tokenizer has a token of the text, longer than one letter."""
        ids = self._tokenizer([text])[0].tolist()
        return self._known_tokens.any_of(ids)

    @cached_property
    def _known_tokens(self) -> KnownTokens:
        special = set(getattr(self._tokenizer, "all_special_ids", (0,)))
        return KnownTokens(
            lambda ids: str(self._tokenizer.decode([i for i in ids if i not in special])), ()
        )


class _ImageFeatures(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.model = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scaled pixels (b, 3, size, size) -> (b, dim)."""
        out: torch.Tensor = self.model.encode_image(pixels)
        return out


class _TextFeatures(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.model = network

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (b, length) -> (b, dim)."""
        out: torch.Tensor = self.model.encode_text(tokens)
        return out


@lru_cache(maxsize=4)
def _load(spec: str, precision: Precision) -> OpenClipModel:
    folder = Path(spec).expanduser()
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise ModelError(f"{spec} has no weights, expected {' or '.join(WEIGHTS)}")
    import open_clip

    logging.disable(logging.WARNING)  # open_clip logs every step through the root logger
    try:
        name = f"local-dir:{folder.resolve()}"
        network = open_clip.create_model(name)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip and torch raise many types for damaged files
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"backbone {spec!r} cannot be loaded by open_clip: {reason}") from None
    finally:
        logging.disable(logging.NOTSET)
    network = network.to(device(), DTYPES[precision]).eval()
    fingerprint = with_precision(f"open-clip-{_digest(folder)}", precision)
    return OpenClipModel(spec, network, tokenizer, fingerprint)


def _preprocessing(model: OpenClipModel) -> Preprocessing:
    """Return the preprocessing that gives the same pixels as open_clip. Raises ModelError."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    declared = dict(getattr(model.network.visual, "preprocess_cfg", {}))
    declared.setdefault("size", model.network.visual.image_size)
    transform = image_transform_v2(PreprocessCfg(**declared), is_train=False)

    def process(image: Image.Image) -> npt.NDArray[np.float32]:
        return np.asarray(transform(image).numpy(), np.float32)

    return verified(model.spec, "open_clip", process, _candidates(PreprocessCfg(**declared)))


def _candidates(declared: Any) -> Iterator[Preprocessing]:
    """Yield what the ``preprocess_cfg`` of open_clip may mean."""
    size = declared.size
    side = int(size if isinstance(size, int) else size[0])
    squash = Preprocessing(
        side,
        "squash",
        resized=side,
        resample="bilinear" if declared.interpolation == "bilinear" else "bicubic",
        mean=tuple(declared.mean),
        std=tuple(declared.std),
    )
    fill = int(declared.fill_color)
    cut = replace(squash, offset="round", fill=(fill, fill, fill))
    yield {
        "squash": squash,
        "longest": replace(cut, fit="longest"),
    }.get(declared.resize_mode, replace(cut, fit="shortest", fill=(0, 0, 0)))


def _earlier_preprocessing(model: OpenClipModel) -> Preprocessing | None:
    """Return the preprocessing of earlier versions, None if they refused the model.

    Encoders that were trained with it keep it.
    """
    declared = dict(getattr(model.network.visual, "preprocess_cfg", {}))
    size = declared.get("size") or model.network.visual.image_size
    side = size if isinstance(size, int) else size[0]
    fit = declared.get("resize_mode", "shortest")
    if fit not in ("shortest", "squash") or (not isinstance(size, int) and len(set(size)) > 1):
        return None
    return Preprocessing(
        size=int(side),
        fit="crop" if fit == "shortest" else "squash",
        resample=declared.get("interpolation", "bicubic"),
        mean=tuple(declared["mean"]),
        std=tuple(declared["std"]),
    )


def _digest(folder: Path) -> str:
    """Return a hash of the files that decide the features."""
    hashed = hashlib.blake2b(digest_size=8)
    suffixes = (".safetensors", ".bin", ".json", ".txt", ".model")
    for path in sorted(p for p in folder.iterdir() if p.suffix in suffixes):
        hashed.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                hashed.update(block)
    return hashed.hexdigest()

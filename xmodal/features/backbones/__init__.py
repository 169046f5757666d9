"""Backbones: from a picture or text to a feature vector, loaded by name or local path.

words            hashed words and character n-grams; no download       (text)
small-cnn        raw pixels for a small network trained with the tower (image)
resnet50, ResNet50_Weights.IMAGENET1K_V2    torchvision, by model or weights name (image)
weights.safetensors[?arch=NAME&normalize=imagenet]   torchvision, local weights   (image)
openai/clip-vit-base-patch32, a local folder         transformers: CLIP-like models encode
                                                     both modalities, others one of them;
                                                     folders of sentence-transformers and, with
                                                     the packages open_clip and timm, of these

The interface consists of numpy arrays; torch is imported with the first backbone that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

import numpy.typing as npt

from xmodal.config import FEATURES, PRECISIONS, Precision
from xmodal.data.images import Pixels
from xmodal.data.preprocessing import Preprocessing
from xmodal.errors import ConfigError, ModelError
from xmodal.features.backbones import builtin
from xmodal.modality import Modality

OWN_CODE = "-code"
"""Part of the fingerprint of a backbone whose own code runs."""


class ImageBackbone(Protocol):
    """Square pictures -> features.

    ``spec``: name or path. ``dim``: length of a feature vector. ``raw``: the features are the
    pixels (uint8), for a network that is trained with the tower. ``batch``: recommended batch size.
    ``fingerprint``: hash of everything that changes a feature. ``space``: equal for an image and a
    text backbone whose features can be compared, else None.
    """

    spec: str
    dim: int
    raw: bool
    batch: int
    fingerprint: str
    space: str | None
    preprocessing: Preprocessing

    def forward(self, pixels: Pixels) -> npt.NDArray[Any]:
        """Shape (b, size, size, 3) uint8 -> (b, dim) float32, or uint8 if raw."""


class TextBackbone(Protocol):
    """Texts -> features; the attributes are those of :class:`ImageBackbone`."""

    spec: str
    dim: int
    batch: int
    fingerprint: str
    space: str | None

    def forward(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """``b`` texts -> (b, dim) float32."""

    def has_known_token(self, text: str) -> bool:
        """Return whether the vocabulary has a token of the text, longer than one letter."""


@lru_cache(maxsize=8)
def load_image_backbone(
    spec: str,
    *,
    precision: Precision = "float32",
    trust_remote_code: bool = False,
    recorded: str | None = None,
) -> ImageBackbone:
    """Load the image backbone ``spec``; it computes in ``precision``.

    Built-in backbones give the same features in every precision. Code that belongs to a model is
    only run with ``trust_remote_code``. ``recorded``: fingerprint that an encoder recorded; with
    that of an earlier version, pictures are prepared as in that version.

    Raises ModelError if it cannot be loaded, ConfigError for a text backbone and for an unknown
    precision.
    """
    loaded = _load(spec, "image", precision, trust_remote_code, recorded)
    return cast(ImageBackbone, loaded)


@lru_cache(maxsize=8)
def load_text_backbone(
    spec: str, *, precision: Precision = "float32", trust_remote_code: bool = False
) -> TextBackbone:
    """Load the text backbone ``spec``; see :func:`load_image_backbone`."""
    return cast(TextBackbone, _load(spec, "text", precision, trust_remote_code))


def recorded_spec(spec: str, fingerprint: str) -> str:
    """Return the spec that loads a backbone with ``fingerprint``, which an encoder recorded.

    Encoders of earlier versions were trained with the features "words-1" of ``words``.
    """
    return fingerprint if (spec, fingerprint) == ("words", "words-1") else spec


def _load(
    spec: str,
    modality: Modality,
    precision: Precision,
    trust_remote_code: bool,
    recorded: str | None = None,
) -> object:
    """Load a built-in backbone, a weights file, a folder, a torchvision or Hugging Face model."""
    if not spec.strip():
        raise ConfigError(f"the name of the {modality} backbone is empty")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if spec == FEATURES:
        raise ModelError(
            f"this encoder has no {modality} backbone, it was trained on features of a file: "
            f"encode features with --features FILE, or train with --{modality}-backbone"
        )
    built_in: dict[str, tuple[Modality, Callable[[str], object]]] = {
        "words": ("text", builtin.Words),
        "words-1": ("text", lambda _: builtin.Words(fingerprint="words-1")),
        "small-cnn": ("image", builtin.RawPixels),
    }
    if spec in built_in:
        supported, create = built_in[spec]
        _check_modality(spec, supported, modality)
        return create(spec)

    from xmodal.features.backbones import huggingface, open_clip_models, torchvision_models

    if torchvision_models.is_weights_file(spec) or (
        not Path(spec).exists() and torchvision_models.is_known(spec)
    ):
        _check_modality(spec, "image", modality)
        return torchvision_models.load(spec, precision, recorded)
    if open_clip_models.is_open_clip(spec):
        return open_clip_models.load(spec, modality, precision, recorded)
    trust = {"trust_remote_code": trust_remote_code}
    if modality == "text":
        return huggingface.load_text(spec, precision, **trust)
    return huggingface.load_image(spec, precision, recorded=recorded, **trust)


def _check_modality(spec: str, supported: Modality, modality: Modality) -> None:
    if supported != modality:
        raise ConfigError(f"{spec} is a backbone for {supported}s, expected one for {modality}s")

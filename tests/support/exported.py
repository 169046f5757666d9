"""Encoders with random towers, and exports of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xmodal.config import Precision
from xmodal.encoders.calibration import Confidence, EvenCurve
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.encoders.torch_encoder import BackboneRef, TrainedEncoder
from xmodal.encoders.towers import Kind, Towers
from xmodal.features.backbones import load_image_backbone, load_text_backbone
from xmodal.modality import Modality

LONG = " ".join(f"a {colour} circle" for colour in ("red", "green", "blue") * 40)
"""A text that every backbone truncates."""


def untrained(
    image_backbone: str,
    text_backbone: str,
    kind: Kind = "practical",
    bits: int = 64,
    precision: Precision = "float32",
) -> TrainedEncoder:
    """An encoder of these backbones with random towers, the same for all precisions."""
    image = load_image_backbone(image_backbone, precision=precision)
    text = load_text_backbone(text_backbone, precision=precision)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        towers = Towers(image.dim, text.dim, bits, hidden=32, raw_images=image.raw, kind=kind)
    refs = {
        "image": BackboneRef(image_backbone, image.fingerprint),
        "text": BackboneRef(text_backbone, text.fingerprint),
    }
    return TrainedEncoder(
        towers, refs, Confidence(even=EvenCurve(1.0, 0.0, bits)), precision=precision
    )


def exported(encoder: TrainedEncoder, folder: Path, **options: Any) -> PortableEncoder:
    """Save the encoder as ``folder``/x.model and export it to ``folder``/x.onnx."""
    from xmodal.export import Check, export

    encoder.save(folder / "x.model")
    return export(folder / "x.model", folder / "x.onnx", check=Check(items=20), **options)


def equal_bits(one: Encoder, other: Encoder, modality: Modality, sources: Sequence[Any]) -> float:
    """Share of equal bits in the codes of two encoders."""
    codes = [encoder.encode(modality, sources).codes.to_bits() for encoder in (one, other)]
    return float((codes[0] == codes[1]).mean())

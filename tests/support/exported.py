"""Encoders with random towers, and portable ones made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xmodal.encoders.calibration import Confidence
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.encoders.torch_encoder import BackboneRef, TrainedEncoder
from xmodal.encoders.towers import Kind, Towers
from xmodal.features.backbones import load_image_backbone, load_text_backbone
from xmodal.modality import Modality

LONG = " ".join(f"a {colour} circle" for colour in ("red", "green", "blue") * 40)
"""More than any text backbone reads."""


def untrained(image: str, text: str, kind: Kind = "practical", bits: int = 64) -> TrainedEncoder:
    """An encoder with random towers behind some backbones, computing in float32."""
    seen = load_image_backbone(image, float32=True)
    told = load_text_backbone(text, float32=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        towers = Towers(seen.dim, told.dim, bits, hidden=32, raw_images=seen.raw, kind=kind)
    refs = {
        "image": BackboneRef(image, seen.fingerprint),
        "text": BackboneRef(text, told.fingerprint),
    }
    return TrainedEncoder(towers, refs, Confidence(1.0, 0.0, bits), float32=True)


def exported(encoder: TrainedEncoder, folder: Path, **options: Any) -> PortableEncoder:
    """The same as a portable one, in ``folder``/x.onnx."""
    from xmodal.exporting import Check, export

    encoder.save(folder / "x.model")
    return export(folder / "x.model", folder / "x.onnx", check=Check(items=20), **options)


def same_bits(one: Encoder, other: Encoder, side: Modality, sources: Sequence[Any]) -> float:
    """The share of bits that two encoders agree on."""
    codes = [encoder.encode(side, sources).codes.to_bits() for encoder in (one, other)]
    return float((codes[0] == codes[1]).mean())

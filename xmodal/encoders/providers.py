"""Execution providers of onnxruntime: the processor or library that computes portable encoders.

Another provider than the CPU's rounds differently, so that bits near the threshold may differ: the
codes of both are compared when an encoder is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from xmodal.data.synthetic import all_combinations, caption, render_picture
from xmodal.errors import ConfigError, ModelError
from xmodal.modality import MODALITIES, Modality

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder

Provider = Literal["cpu", "cuda", "openvino", "coreml", "directml"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
NAMES: Mapping[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
"""Names of the providers in onnxruntime."""
PACKAGES: Mapping[Provider, str] = {
    "cuda": "onnxruntime-gpu",
    "openvino": "onnxruntime-openvino",
    "coreml": "onnxruntime (macOS)",
    "directml": "onnxruntime-directml (Windows)",
}
"""Packages that have a provider; each replaces the package onnxruntime."""
SAMPLES = 16
"""Pictures, and texts, whose codes are compared."""
MAX_DIFFERENT = 0.01
"""Largest share of bits that may differ from those of the CPU's provider."""
log = logging.getLogger(__name__)


class Difference(NamedTuple):
    """Bits that differ between two encoders, and all bits that were compared."""

    different: int
    bits: int


def session_providers(onnxruntime: Any, provider: Provider) -> list[str]:
    """Return the providers of a session: the given one, and the CPU's for the rest of a graph.

    Raises ConfigError if onnxruntime was built without the provider.
    """
    found = onnxruntime.get_available_providers()
    if NAMES[provider] not in found:
        present = [name for name in PROVIDERS if NAMES[name] in found]
        raise ConfigError(
            f"provider {provider} is not in onnxruntime {onnxruntime.__version__}, which has "
            f"{', '.join(present)}: install {PACKAGES[provider]} in its place"
        )
    return list(dict.fromkeys((NAMES[provider], NAMES["cpu"])))


def check_started(session: Any, provider: Provider) -> None:
    """Raise ConfigError if a session computes without the provider, which could not be started."""
    if NAMES[provider] not in session.get_providers():
        raise ConfigError(
            f"provider {provider} is installed and cannot be started: check its driver and "
            "libraries, or leave the provider out"
        )


def bit_differences(first: Encoder, second: Encoder) -> dict[Modality, Difference]:
    """Return by modality the bits that differ in the codes of rendered pictures and their texts."""
    every, rng = all_combinations(), np.random.default_rng(0)
    chosen = every[:: len(every) // SAMPLES][:SAMPLES]
    sources: dict[Modality, Sequence[Any]] = {
        "image": [render_picture(one, "large", rng) for one in chosen],
        "text": [caption(one) for one in chosen],
    }
    found: dict[Modality, Difference] = {}
    for modality in MODALITIES:
        bits = [one.encode(modality, sources[modality]).codes.to_bits() for one in (first, second)]
        found[modality] = Difference(int((bits[0] != bits[1]).sum()), bits[0].size)
    return found


def check_codes(provider: Provider, encoder: Encoder, on_cpu: Encoder) -> None:
    """Compare the codes of two providers and log the number of different bits.

    Raises ModelError if a share of more than MAX_DIFFERENT differs.
    """
    found = bit_differences(encoder, on_cpu)
    parts = (f"{n.different:,} of {n.bits:,} bits of {m}s" for m, n in found.items())
    line = f"provider {provider}: {' and '.join(parts)} differ from those of the CPU"
    log.info(line)
    if any(one.different > MAX_DIFFERENT * one.bits for one in found.values()):
        raise ModelError(
            f"{line}, expected at most {MAX_DIFFERENT:.0%}: hits would differ; leave the provider "
            "out, or export the model in float32"
        )

"""Comparison of codes of a reduced precision with those of float32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xmodal.config import Options
from xmodal.data.dataset import Dataset
from xmodal.data.names import sorted_by_hash
from xmodal.data.problems import Problems
from xmodal.encoders.torch_encoder import as_tensor
from xmodal.encoders.towers import Towers
from xmodal.features.backbones import load_image_backbone, load_text_backbone
from xmodal.features.extract import (
    Array,
    Usable,
    image_features,
    pair_sources,
    text_features,
)
from xmodal.features.rows import Features
from xmodal.modality import Modality

MAX_COMPARED = 500
"""Pairs on which a precision is compared with float32."""


def equal_bits(
    towers: Towers,
    usable: Dataset,
    features: Mapping[Modality, Features],
    options: Options,
    cache: Path | None,
) -> dict[str, float]:
    """Return by modality the share of code bits that backbones in float32 give as well.

    ``features[modality]``: of all sources of the pairs ``usable``. Measured on a sample of at most
    ``MAX_COMPARED`` pairs; empty for float32 itself.
    """
    if options.precision == "float32":
        return {}
    chosen = set(sorted_by_hash(usable.ids, "precision")[:MAX_COMPARED])
    rows = np.array([id_ in chosen for id_ in usable.ids])
    sources = pair_sources(usable.take(np.flatnonzero(rows)))
    trust = options.trust_remote_code
    image, text = (
        load_image_backbone(options.image_backbone, precision="float32", trust_remote_code=trust),
        load_text_backbone(options.text_backbone, precision="float32", trust_remote_code=trust),
    )
    exact: dict[Modality, tuple[Array, Usable]] = {
        "image": image_features(image, sources["image"], cache=cache, problems=Problems()),
        "text": text_features(text, sources["text"], cache=cache, problems=Problems()),
    }
    shares = {}
    for modality, (values, good) in exact.items():
        of_rows = np.repeat(rows, usable.sizes(modality))
        found = towers.codes(modality, as_tensor(features[modality][of_rows][good])).to_bits()
        expected = towers.codes(modality, as_tensor(values[good])).to_bits()
        share = round(float((found == expected).mean()), 4)
        shares[f"bits equal to float32, {modality}"] = share
    return shares

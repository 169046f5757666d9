"""Encoder of pictures that were decoded before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.data.images import Pixels
from xmodal.data.items import ImageSource
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.encoders.derived_encoder import DerivedEncoder
from xmodal.encoders.encoder import Encoded, Encoder
from xmodal.modality import Modality


class DecodedEncoder(DerivedEncoder[Encoder]):
    """Encodes pictures by their pixels; texts as ``encoder`` does, which has the same codes.

    ``pixels``: (size, size, 3) of each usable picture, prepared by the encoder's ``preprocessing``.
    """

    def __init__(self, encoder: Encoder, pixels: Mapping[ImageSource, Pixels]) -> None:
        super().__init__(encoder)
        self.pixels = pixels

    def encode(
        self,
        modality: Modality,
        sources: Sequence[Any],
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> Encoded:
        """Encode without a cache; pictures without pixels are unusable and not recorded."""
        options: dict[str, Any] = {"problems": problems, "progress": progress}
        if modality == "text":
            return self.encoder.encode(modality, sources, **options)
        rows = [row for row, source in enumerate(sources) if source in self.pixels]
        usable = np.zeros(len(sources), np.bool_)
        packed = np.zeros((len(sources), self.bits // 8), np.uint8)
        outputs = np.zeros((len(sources), self.bits), np.float32)
        features = np.zeros((len(sources), 1), np.float16)
        if rows:
            pixels = [self.pixels[sources[row]] for row in rows]
            found = self.encoder.encode(modality, pixels, **options)
            packed[rows], usable[rows] = found.codes.packed, found.usable
            features = np.zeros((len(sources), *found.features.shape[1:]), found.features.dtype)
            features[rows] = found.features
            if found.outputs is None:
                return Encoded(BinaryCodes(packed, self.bits), usable, features)
            outputs[rows] = found.outputs
        return Encoded(BinaryCodes(packed, self.bits), usable, features, outputs)

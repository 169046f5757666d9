"""Built-in backbones without a download: hashed words, and raw pixels for a trained network."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from xmodal.data.images import Pixels
from xmodal.data.preprocessing import Preprocessing
from xmodal.features.backbones.words import GRAMS

WORDS_FINGERPRINT = "words-2"
"""Fingerprint of the backbone ``words`` of this version."""


class Words:
    """Words, pairs of words and character n-grams, hashed into ``dim`` signed buckets.

    Weinberger et al., "Feature hashing for large scale multitask learning", ICML 2009. A gram that
    occurs c times weighs 1 + log c; words weigh more than character n-grams, see
    :mod:`xmodal.features.backbones.words`. A text without any letter, digit or symbol has a zero
    vector, which callers treat as unusable. ``fingerprint``: "words-1" for encoders of earlier
    versions.
    """

    dim = 4096
    batch = 64
    space = None

    def __init__(self, spec: str = "words", fingerprint: str = WORDS_FINGERPRINT) -> None:
        self.spec, self.fingerprint = spec, fingerprint
        self._grams = GRAMS[fingerprint]

    def forward(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """``b`` texts -> (b, dim) float32."""
        out = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for (gram, weight), count in Counter(self._grams(text)).items():
                hashed = zlib.crc32(gram.encode())
                sign = 1.0 if hashed & 1 else -1.0
                out[row, (hashed >> 1) % self.dim] += sign * weight * (1 + math.log(count))
        return out

    def has_known_token(self, text: str) -> bool:
        """Return whether the text has a gram: hashed words have no vocabulary.

        The known words are those of the training, see ``Confidence.known_words``.
        """
        return any(True for _ in self._grams(text))


class RawPixels:
    """Raw pixels of 64 x 64 pictures, for :class:`xmodal.encoders.towers.SmallCNN`."""

    raw = True
    space = None
    preprocessing = Preprocessing(size=64, fit="squash", resample="bilinear")
    dim = 64 * 64 * 3
    batch = 32
    fingerprint = "pixels-64-1"

    def __init__(self, spec: str = "small-cnn") -> None:
        self.spec = spec

    def forward(self, pixels: Pixels) -> Pixels:
        """(b, 64, 64, 3) uint8 -> (b, 12288) uint8."""
        return pixels.reshape(len(pixels), self.dim)

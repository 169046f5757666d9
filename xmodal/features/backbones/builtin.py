"""Built-in backbones without a download: hashed words, and raw pixels for a trained network."""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from xmodal.data.images import Pixels, Preprocessing


class Words:
    """Words, pairs of words and character 3- to 5-grams, hashed into ``dim`` signed buckets.

    Weinberger et al., "Feature hashing for large scale multitask learning", ICML 2009. A gram that
    occurs c times weighs 1 + log c; words weigh more than character n-grams. A text without any
    letter or digit has a zero vector, which callers treat as unusable.
    """

    dim = 4096
    batch = 64
    fingerprint = "words-1"
    space = None

    def __init__(self, spec: str = "words") -> None:
        self.spec = spec

    def forward(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """``b`` texts -> (b, dim) float32."""
        out = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for (gram, weight), count in Counter(_grams(text)).items():
                hashed = zlib.crc32(gram.encode())
                sign = 1.0 if hashed & 1 else -1.0
                out[row, (hashed >> 1) % self.dim] += sign * weight * (1 + math.log(count))
        return out


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


def _grams(text: str) -> Iterator[tuple[str, float]]:
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    for word in words:
        yield word, 1.0
        bounded = f"<{word}>"
        for n in (3, 4, 5):
            for start in range(len(bounded) - n + 1):
                yield f"{n}{bounded[start : start + n]}", 0.25
    for first, second in pairwise(words):
        yield f"{first} {second}", 0.5

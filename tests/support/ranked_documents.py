"""Documents with vectors and captions, more than vectors order again."""

from __future__ import annotations

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.index.contract import WINDOW
from xmodal.index.documents import DocumentBatch
from xmodal.vectors import to_int8


def ranked_documents(bits: int) -> DocumentBatch:
    """600 documents with a random vector; one of six captions (two words) for each."""
    random, n = np.random.default_rng(4), 2 * WINDOW
    outputs = random.normal(size=(n, bits))
    words = [
        f"{colour} {shape}" for colour in ("red", "blue", "green") for shape in ("star", "box")
    ]
    return DocumentBatch.of(
        [f"{number:04}" for number in random.permutation(n)],
        image=BinaryCodes(np.packbits(outputs > 0, axis=1), bits),
        image_vectors=to_int8(outputs),
        fields=[{"text": words[number % len(words)]} for number in range(n)],
    )

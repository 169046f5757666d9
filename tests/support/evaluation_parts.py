"""Small parts of evaluation data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.evaluation.protocol import Part
from xmodal.features.units import Units
from xmodal.modality import MODALITIES


def codes(numbers: Sequence[int]) -> BinaryCodes:
    return BinaryCodes(np.array(numbers, np.uint8).reshape(-1, 1), 8)


def part(
    ids: str,
    labels: Sequence[Sequence[int]],
    image: Sequence[int],
    text: Sequence[int],
    labelled: Sequence[bool] | None = None,
) -> Part:
    """Pairs with one-letter ids and codes of 8 bits; features are labels with noise."""
    n = len(ids)
    rng = np.random.default_rng(n)
    multi_hot = np.array(labels, dtype=bool).reshape(n, -1)
    mask = np.ones(n, bool) if labelled is None else np.array(labelled)
    padded = np.pad(multi_hot.astype(float), ((0, 0), (0, 6 - multi_hot.shape[1])))
    features = {modality: 2 * padded + rng.normal(size=(n, 6)) for modality in MODALITIES}
    return Part(list(ids), features, multi_hot, mask, {"image": codes(image), "text": codes(text)})


def random_part(n: int, seed: int = 0, kinds: int = 3) -> Part:
    """Random pairs whose codes are correlated with their label."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, kinds, size=n)
    image, text = ((kind * 7) ^ rng.integers(0, 16, size=n) for _ in range(2))
    ids = "".join(chr(ord("a") + k) for k in range(n))
    return part(ids, np.eye(kinds)[kind].tolist(), image.tolist(), text.tolist())


def units_of(captions: Sequence[Sequence[str]], pictures: Sequence[int] | None = None) -> Units:
    """Units with these captions and numbers of pictures (default 1); random features of length 4.

    Equal captions have equal features.
    """
    counts = [1] * len(captions) if pictures is None else list(pictures)
    texts = [text for own in captions for text in own]
    distinct = sorted(set(texts))
    key = np.array([distinct.index(text) for text in texts])
    rng = np.random.default_rng(len(texts))
    names = [f"u{number}" for number in range(len(captions))]
    return Units(
        names,
        rng.normal(size=(sum(counts), 4)).astype(np.float32),
        rng.normal(size=(len(distinct), 4)).astype(np.float32)[key],
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([[0], np.cumsum([len(own) for own in captions])]),
        np.zeros((len(captions), 0), bool),
        np.zeros(len(captions), bool),
        key,
        [f"{name}#{k}" for name, n in zip(names, counts, strict=True) for k in range(n)],
        [f"{name}#{k}" for name, own in zip(names, captions, strict=True) for k in range(len(own))],
    )

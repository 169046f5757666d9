"""Captions that are lists of keywords: each keyword is a further caption in training.

People search with one keyword of such a caption. A network that has only seen whole lists does not
find it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from xmodal.data.dataset import Dataset, Item, Problems
from xmodal.features.units import FeatureSource, Units, joined_texts

SEPARATORS = re.compile(r"[,;:|/\n、，；：・]+")
MIN_KEYWORDS = 3
"""Parts of a caption that is a list of keywords."""
MAX_WORDS = 3
"""Largest mean number of words of a keyword."""


def keywords(caption: str) -> list[str]:
    """Return the different keywords of a caption; empty unless it is a list of keywords."""
    parts = [part.strip() for part in SEPARATORS.split(caption) if part.strip()]
    words = sum(len(part.split()) for part in parts)
    if len(parts) < MIN_KEYWORDS or words > MAX_WORDS * len(parts):
        return []
    return list(dict.fromkeys(parts))


def with_keywords(units: Units, items: Iterable[Item], source: FeatureSource) -> Units:
    """Return the units with the keywords of their captions as further captions.

    ``items``: the items of the units. ``source`` computes the features of the keywords.
    """
    found: dict[str, dict[str, None]] = {}
    for item in items:
        parts = (part for caption in item.captions for part in keywords(str(caption)))
        found.setdefault(item.group or item.id, {}).update(dict.fromkeys(parts))
    further = Dataset(tuple(Item(id_, captions=tuple(found.get(id_, ()))) for id_ in units.ids))
    if not any(item.captions for item in further):
        return units
    features, usable = source.features("text", further.items, Problems())
    unit = np.repeat(np.arange(len(units)), [len(item.captions) for item in further])
    return joined_texts(units, features[usable], unit[usable])

"""Features of pictures without captions and of captions without pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.data.unpaired import UnpairedItems
from xmodal.features.rows import Array, FeatureRows
from xmodal.features.units import FeatureSource
from xmodal.modality import Modality


@dataclass(frozen=True)
class Unpaired:
    """Features of pictures without captions, (p, d_image), and of captions alone, (c, d_text)."""

    image: Array
    text: Array

    def features(self, modality: Modality) -> Array:
        """Return the features of the pictures, or of the captions."""
        return self.image if modality == "image" else self.text


def unpaired_features(
    items: UnpairedItems, source: FeatureSource, problems: Problems
) -> Unpaired | None:
    """Return the features of usable pictures and texts in memory, None if one side has none.

    Unusable pictures and texts are recorded in ``problems``.
    """
    if not items:
        return None
    image = _usable(source, "image", items.pictures, problems)
    text = _usable(source, "text", items.texts, problems)
    return Unpaired(image, text) if len(image) and len(text) else None


def _usable(
    source: FeatureSource, modality: Modality, items: Sequence[Item], problems: Problems
) -> Array:
    features, usable = source.features(modality, items, problems)
    return FeatureRows.of(features)[usable]

"""The two modalities of an item: image and text."""

from __future__ import annotations

from typing import Literal, get_args

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

DIRECTIONS: tuple[tuple[Modality, Modality], ...] = (("image", "text"), ("text", "image"))
"""Directions of cross-modal search: modality of the query, modality of the results."""


def other_modality(modality: Modality) -> Modality:
    """Return "text" for "image" and "image" for "text"."""
    return "text" if modality == "image" else "image"

"""The two modalities: "image" and "text"."""

from __future__ import annotations

from typing import Literal, get_args

Modality = Literal["image", "text"]


MODALITIES: tuple[Modality, ...] = get_args(Modality)

"""Batches of units: one picture and one caption of each, drawn at random in every step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from xmodal.encoders.torch_encoder import as_tensor
from xmodal.features.rows import Int64
from xmodal.features.units import Units
from xmodal.modality import Modality


@dataclass(frozen=True)
class Batch:
    """``b`` units: ``image`` (b, d_image), ``text`` (b, d_text), and ``equal`` (b, b) bool.

    ``equal[i, j]``: another unit with the same caption, which is no negative.
    """

    image: torch.Tensor
    text: torch.Tensor
    equal: torch.Tensor


class Sampler:
    """Draws batches of ``units``; the features stay in their own precision until then.

    ``caption_mix``: largest share of a second caption of the same unit in the caption's features.
    """

    def __init__(self, units: Units, caption_mix: float, device: torch.device) -> None:
        self._units, self._mix, self._device = units, caption_mix, device

    def batch(self, chosen: Int64, rng: np.random.Generator) -> Batch:
        """Return one picture and one caption of each of the units ``chosen``, (b,)."""
        units = self._units
        first = _draw(units.text_offsets, chosen, rng)
        text = self._features("text", first)
        if self._mix:
            second = _draw(units.text_offsets, chosen, rng)
            share = torch.from_numpy(rng.random((len(chosen), 1), dtype=np.float32) * self._mix)
            mixed = torch.lerp(text, self._features("text", second), share.to(text))
            text = functional.normalize(mixed, dim=1)
        keys = units.text_key[first]
        equal = np.equal.outer(keys, keys) & ~np.eye(len(keys), dtype=np.bool_)
        image = self._features("image", _draw(units.image_offsets, chosen, rng))
        return Batch(image, text, torch.from_numpy(equal).to(self._device))

    def _features(self, modality: Modality, rows: Int64) -> torch.Tensor:
        """Return the features of pictures or captions, (b, d)."""
        return as_tensor(self._units.features(modality)[rows]).to(self._device)


def _draw(offsets: Int64, units: Int64, rng: np.random.Generator) -> Int64:
    """Return a random row of each unit."""
    start, end = offsets[units], offsets[units + 1]
    return np.asarray(start + (rng.random(len(units)) * (end - start)).astype(np.int64))

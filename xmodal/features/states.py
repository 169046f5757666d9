"""Features of backbones whose last blocks are trained (torch).

The states of a picture or text in front of the blocks are computed once, by the unchanged part of
the backbone, and stored in float16 in the feature cache. Texts are padded to a multiple of
``LENGTH_STEP`` tokens; each length has a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.device import device
from xmodal.errors import ModelError
from xmodal.features.backbones import ImageBackbone, TextBackbone
from xmodal.features.backbones.blocks import LastBlocks, find_blocks, states_before
from xmodal.features.backbones.changed import plain_network
from xmodal.features.backbones.modules import PixelNetwork
from xmodal.features.backbones.tokens import TokenTextBackbone
from xmodal.features.extract import (
    Array,
    Usable,
    cache_fingerprint,
    image_rows,
    text_rows,
    usable_rows,
)
from xmodal.features.rows import Int64, unit_float16
from xmodal.features.units import BackboneSource
from xmodal.modality import Modality

LENGTH_STEP = 8
SAMPLE_TEXTS = ("a", "a red circle on the left of a blue square")
"""Texts of different lengths, on which the divided network is compared with the whole one."""
BATCH_ROWS = 64
"""Rows whose features are computed at once outside of the training."""


@dataclass
class States:
    """Featurizer of states; ``compute`` maps pixels or texts to them, (b, ...)."""

    dim: int
    batch: int
    fingerprint: str
    compute: Callable[[Any], torch.Tensor]
    dtype: str = "float16"

    def rows(self, batch: Any) -> tuple[Array, Usable]:
        """Return states (b, dim), and which are finite and not all zero."""
        values = self.compute(batch).flatten(1).half().cpu().numpy()
        return values, usable_rows(values)


class TrainedImages:
    """States of pictures, and the last ``count`` blocks of a backbone, which are trained.

    Raises ModelError for a backbone without such blocks.
    """

    def __init__(self, backbone: ImageBackbone, count: int) -> None:
        self.backbone = backbone
        network = plain_network(backbone)
        assert isinstance(network, PixelNetwork)  # of all image backbones with a network
        self._network = network
        size = backbone.preprocessing.size
        pixels = np.random.default_rng(0).integers(256, size=(2, size, size, 3), dtype=np.uint8)
        sample = (torch.from_numpy(pixels).to(device()),)
        names = _last_blocks(backbone.spec, network, sample, count)
        self._first = names[0]
        inner = [name.removeprefix("network.") for name in names]
        scaled = (network.scaled(*sample),)
        self.blocks = LastBlocks.of(backbone.spec, network.network, inner, scaled)
        self._shape = tuple(self._compute(pixels).shape[1:])
        # The blocks read states; these are in place of pixels that nothing reads, without memory.
        self._blank = torch.zeros(1, 1, 1, 1, device=device()).expand(1, 3, size, size)
        self._states: Array = np.zeros((0, 0), np.float16)

    def compute(
        self,
        sources: Sequence[Any],
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> Usable:
        """Compute the states of ``n`` pictures, or read them; return which are usable, (n,)."""
        featurizer = States(
            math.prod(self._shape),
            self.backbone.batch,
            f"{cache_fingerprint(self.backbone)}-before-{self._first}",
            self._compute,
        )
        self._states, usable = image_rows(
            featurizer,
            self.backbone.preprocessing,
            sources,
            cache=cache,
            problems=problems,
            progress=progress,
        )
        return usable

    def features(self, rows: Int64) -> torch.Tensor:
        """Return the features (b, dim) of pictures by the blocks, with gradients."""
        states = torch.from_numpy(self._states[rows].reshape(-1, *self._shape))
        blank = self._blank.expand(len(rows), -1, -1, -1)
        out: torch.Tensor = self.blocks(states.to(device()).float(), blank)
        return out

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the weights of the blocks by their names in the network of the backbone."""
        return {f"network.{name}": value for name, value in self.blocks.tensors().items()}

    def _compute(self, pixels: Array) -> torch.Tensor:
        inputs = (torch.from_numpy(pixels).to(device()),)
        return states_before(self._network, self._first, inputs)


class TrainedTexts:
    """States of texts, and the last ``count`` blocks of a backbone, which are trained.

    Raises ModelError for a backbone without such blocks.
    """

    def __init__(self, backbone: TextBackbone, count: int) -> None:
        self._network = plain_network(backbone)
        assert isinstance(backbone, TokenTextBackbone)  # the only text backbones with a network
        self.backbone = backbone
        sample = self._inputs(SAMPLE_TEXTS, max(backbone.lengths(SAMPLE_TEXTS)))
        names = _last_blocks(backbone.spec, self._network, sample, count)
        self._first = names[0]
        self.blocks = LastBlocks.of(backbone.spec, self._network, names, sample)
        self._width = int(states_before(self._network, self._first, sample).shape[2])
        self._groups: dict[int, tuple[Array, tuple[torch.Tensor, ...]]] = {}
        self._length = self._place = np.zeros(0, np.int64)

    def compute(
        self,
        sources: Sequence[Any],
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> Usable:
        """Compute the states of ``n`` texts, or read them; return which are usable, (n,)."""
        texts = [str(source) for source in sources]
        tokens = np.array(self.backbone.lengths(texts), np.int64)
        padded = -(-np.maximum(tokens, 1) // LENGTH_STEP) * LENGTH_STEP
        self._length = np.minimum(padded, self.backbone.max_tokens)
        self._place = np.zeros(len(texts), np.int64)
        self._groups = {}
        usable = np.zeros(len(texts), np.bool_)
        done = 0
        for length in np.unique(self._length).tolist():
            rows = np.flatnonzero(self._length == length)
            self._place[rows] = np.arange(len(rows))
            part = [texts[row] for row in rows]
            states, usable[rows] = text_rows(
                self._featurizer(length),
                part,
                cache=cache,
                problems=problems,
                progress=_continued(progress, done, len(texts)),
            )
            self._groups[length] = states, self.backbone.inputs_of(part, length)
            done += len(rows)
        return usable

    def features(self, rows: Int64) -> torch.Tensor:
        """Return the features (b, dim) of texts by the blocks, with gradients."""
        lengths = self._length[rows]
        parts, order = [], []
        for length in np.unique(lengths).tolist():
            chosen = np.flatnonzero(lengths == length)
            stored, inputs = self._groups[length]
            places = self._place[rows[chosen]]
            states = torch.from_numpy(stored[places].reshape(-1, length, self._width))
            tokens = (one[torch.from_numpy(places)].to(device()) for one in inputs)
            parts.append(self.blocks(states.to(device()).float(), *tokens))
            order.append(chosen)
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        return torch.cat(parts)[back.to(device())]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the weights of the blocks by their names in the network of the backbone."""
        return self.blocks.tensors()

    def _featurizer(self, length: int) -> States:
        return States(
            length * self._width,
            self.backbone.batch,
            f"{cache_fingerprint(self.backbone)}-before-{self._first}-{length}",
            lambda texts: states_before(self._network, self._first, self._inputs(texts, length)),
        )

    def _inputs(self, texts: Sequence[str], length: int) -> tuple[torch.Tensor, ...]:
        return tuple(one.to(device()) for one in self.backbone.inputs_of(texts, length))


TrainedSide = TrainedImages | TrainedTexts
Sides = Mapping[Modality, TrainedSide]
"""Sides of the backbones whose last blocks are trained, by modality."""


@dataclass(frozen=True)
class StateSource(BackboneSource):
    """Features of backbones; those of ``sides`` are computed from states by the blocks."""

    sides: Sides = field(default_factory=dict)

    def features(
        self, modality: Modality, items: Sequence[Item], problems: Problems
    ) -> tuple[Array, Usable]:
        """Compute the features; see :meth:`FeatureSource.features`.

        A side keeps the states of the last call; its rows are those of the features.
        """
        if modality not in self.sides:
            return super().features(modality, items, problems)
        side = self.sides[modality]
        sources = [source for item in items for source in item.sources(modality)]
        usable = side.compute(sources, cache=self.cache, problems=problems, progress=self.progress)
        out = np.zeros((len(sources), side.backbone.dim), np.float16)
        rows = np.flatnonzero(usable)
        out[rows] = current_features(side, rows)
        return out, usable & usable_rows(out)


@torch.inference_mode()
def current_features(side: TrainedSide, rows: Int64) -> Array:
    """Return the features of rows by the blocks as they are, (n, dim) float16 of length 1."""
    parts = [np.zeros((0, side.backbone.dim), np.float16)]
    for start in range(0, len(rows), BATCH_ROWS):
        values = side.features(rows[start : start + BATCH_ROWS]).float()
        parts.append(unit_float16(values.cpu().numpy()))
    return np.concatenate(parts)


def _last_blocks(
    spec: str, network: nn.Module, sample: Sequence[torch.Tensor], count: int
) -> list[str]:
    """Return the names of the last ``count`` blocks. Raises ModelError if there are fewer."""
    names = find_blocks(spec, network, sample)
    if count > len(names):
        raise ModelError(
            f"the backbone {spec!r} has {len(names)} blocks, found {count} in --fine-tune: name "
            f"at most {len(names)}"
        )
    return names[-count:]


def _continued(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Return a callback that also counts the texts of other lengths."""
    if progress is None:
        return None
    return lambda name, done, _: progress(name, before + done, total)

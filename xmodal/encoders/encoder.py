"""Encoder: the interface of everything that turns pictures and texts into codes.

:func:`xmodal.load_encoder` returns :class:`~xmodal.encoders.torch_encoder.TrainedEncoder`, computed
by torch, or :class:`~xmodal.encoders.onnx_encoder.PortableEncoder`, computed by onnxruntime.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset, Problems, Progress
from xmodal.data.images import Source
from xmodal.encoders.calibration import Confidence
from xmodal.errors import ConfigError
from xmodal.features.extract import Array, Usable, keep_rows, pair_sources
from xmodal.index.documents import DocumentBatch, fields_to_json, to_offsets
from xmodal.modality import MODALITIES, Modality


class Encoded(NamedTuple):
    """Result of encoding ``n`` sources; rows of unusable sources have no meaning.

    ``usable`` (n,) bool; ``features`` (n, dim): inputs of the tower, float16 of length 1 or uint8
    pixels.
    """

    codes: BinaryCodes
    usable: Usable
    features: Array


class Encoder(ABC):
    """Encoder of pictures and texts to binary codes.

    ``precision``: number format of its backbones, or "int8" for quantized weights. ``confidence``:
    calibration curve from distance to the probability of a match. ``about``: method, settings, data
    and figures. ``split``: the ids of each part of its data.
    """

    precision: str
    confidence: Confidence
    about: dict[str, Any]
    split: Mapping[str, Sequence[str]]

    @property
    @abstractmethod
    def bits(self) -> int:
        """Width of the codes."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that decides a code: 16 hexadecimal digits.

        It ends in "-bfloat16" if the backbones compute in bfloat16 instead of float32.
        """

    @property
    @abstractmethod
    def shared_space(self) -> bool:
        """Whether features of pictures and texts can be compared with each other."""

    @abstractmethod
    def encode(
        self,
        modality: Modality,
        sources: Sequence[Any],
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> Encoded:
        """Encode ``n`` pictures or texts; ``cache``: folder of cached features.

        Unusable sources are recorded in ``problems``; without ``problems`` the first one raises
        DataError.
        """

    def encode_images(self, images: Sequence[Source], *, cache: Path | None = None) -> BinaryCodes:
        """Encode ``n`` paths, bytes or PIL images; raise DataError for an unusable one."""
        return self.encode("image", images, cache=cache).codes

    def encode_texts(self, texts: Sequence[str], *, cache: Path | None = None) -> BinaryCodes:
        """Encode ``n`` texts; raise DataError for an unusable one."""
        return self.encode("text", texts, cache=cache).codes

    def encode_data(
        self,
        data: Dataset,
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> dict[Modality, tuple[list[str], BinaryCodes]]:
        """Return ids and codes of all pictures and all texts.

        Unusable sources are recorded in ``problems``, by default those of ``data``.
        """
        recorded = problems if problems is not None else data.problems
        out: dict[Modality, tuple[list[str], BinaryCodes]] = {}
        for modality in MODALITIES:
            items = [item for item in data if getattr(item, modality) is not None]
            if not items:  # the backbone is not loaded
                out[modality] = [], BinaryCodes.empty(self.bits)
                continue
            encoded = self.encode(
                modality,
                [getattr(item, modality) for item in items],
                cache=cache,
                problems=recorded,
                progress=progress,
            )
            ids = [item.id for item, usable in zip(items, encoded.usable, strict=True) if usable]
            out[modality] = ids, encoded.codes[encoded.usable]
        return out

    def encode_pairs(
        self, pairs: Dataset, *, cache: Path | None = None, progress: Progress | None = None
    ) -> tuple[Dataset, dict[Modality, Encoded]]:
        """Return the pairs whose picture and text are usable, and both encoded, row by row.

        The others are recorded in ``pairs.problems``.
        """
        options = {"cache": cache, "problems": pairs.problems, "progress": progress}
        encoded: dict[Modality, Encoded] = {
            modality: self.encode(modality, sources, **options)  # type: ignore[arg-type]
            for modality, sources in pair_sources(pairs).items()
        }
        usable = encoded["image"].usable & encoded["text"].usable
        usable_pairs: dict[Modality, Encoded] = {
            modality: Encoded(one.codes[usable], one.usable[usable], one.features[usable])
            for modality, one in encoded.items()
        }
        return keep_rows(pairs, usable), usable_pairs

    def batches(
        self,
        data: Dataset,
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
        size: int = 4096,
    ) -> Iterator[DocumentBatch]:
        """Yield the encoded items of ``data`` in order, at most ``size`` per batch.

        Items without a usable picture or text, and items with fields that cannot be stored, are
        recorded in ``data.problems`` and left out.
        """
        codes = self.encode_data(data, cache=cache, progress=progress)
        rows = {m: {id_: row for row, id_ in enumerate(ids)} for m, (ids, _) in codes.items()}
        items = [item for item in data if any(item.id in rows[m] for m in MODALITIES)]
        for start in range(0, len(items), size):
            part, fields = [], []
            for item in items[start : start + size]:
                try:
                    fields.append(fields_to_json(item.document(), item.id))
                    part.append(item)
                except ConfigError as error:
                    data.problems.add("fields not storable", f"{item.id} ({error})")
            ids = [item.id for item in part]
            packed, offsets = {}, {}
            for modality in MODALITIES:
                positions = np.array([rows[modality].get(id_, -1) for id_ in ids], np.int64)
                packed[modality] = codes[modality][1].packed[positions[positions >= 0]]
                offsets[modality] = to_offsets(positions >= 0)
            yield DocumentBatch(ids, packed, offsets, fields)

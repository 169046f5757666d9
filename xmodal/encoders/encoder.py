"""An encoder: what turns pictures and sentences into codes, whatever computes it.

:func:`xmodal.load_encoder` returns the encoder of a folder:
:class:`~xmodal.encoders.torch_encoder.TrainedEncoder` (computed by torch) or
:class:`~xmodal.encoders.onnx_encoder.PortableEncoder` (computed by onnxruntime). Both have the same
interface. A folder contains

    config.json           what it is; it is written last, so a folder that has it is complete.
                          "files" has size and sha256 of the files that decide a code, "sha256" is
                          its own digest (folders of earlier versions may lack them)
    split.json            the ids it was trained on, chosen by, and must be asked with
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
from xmodal.index.documents import DocumentBatch, empty_columns, fields_to_json
from xmodal.modality import MODALITIES, Modality


class Encoded(NamedTuple):
    """What an encoder makes of ``n`` sources; rows of those that cannot be used say nothing.

    ``usable`` (n,); ``features`` (n, dim): what the backbone saw, float16 of length 1 or pixels.
    """

    codes: BinaryCodes
    usable: Usable
    features: Array


class Encoder(ABC):
    """Turns pictures and sentences into codes.

    ``precision``: number format of its backbones, or "int8" for quantized weights. ``confidence``:
    from distance to the probability of a match. ``about``: method, settings, data and figures.
    ``split``: the ids of each part of its data.
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
        """16 hexadecimal digits: a hash of everything that decides a code.

        "-bfloat16" follows if the backbones compute in that instead of float32.
        """

    @property
    @abstractmethod
    def shared_space(self) -> bool:
        """Whether the features of pictures and texts may be compared with each other."""

    @abstractmethod
    def encode(
        self,
        side: Modality,
        sources: Sequence[Any],
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> Encoded:
        """Codes of ``n`` pictures or texts, which of them could be used, and their features.

        What cannot be used is noted in ``problems``; without ``problems`` the first one raises
        DataError.
        """

    def encode_images(self, images: Sequence[Source], *, cache: Path | None = None) -> BinaryCodes:
        """Codes of ``n`` pictures (paths, bytes or PIL images). Raises DataError for a bad one."""
        return self.encode("image", images, cache=cache).codes

    def encode_texts(self, texts: Sequence[str], *, cache: Path | None = None) -> BinaryCodes:
        """Codes of ``n`` texts. Raises DataError for one in which there is nothing to read."""
        return self.encode("text", texts, cache=cache).codes

    def encode_data(
        self,
        data: Dataset,
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> dict[Modality, tuple[list[str], BinaryCodes]]:
        """Ids and codes of all pictures and all texts; what cannot be used goes to ``problems``."""
        noted = problems if problems is not None else data.problems
        out: dict[Modality, tuple[list[str], BinaryCodes]] = {}
        for side in MODALITIES:
            items = [item for item in data if getattr(item, side) is not None]
            if not items:  # a side that nobody has is not even loaded
                out[side] = [], BinaryCodes.empty(self.bits)
                continue
            sources = [getattr(item, side) for item in items]
            found = self.encode(side, sources, cache=cache, problems=noted, progress=progress)
            ids = [item.id for item, good in zip(items, found.usable, strict=True) if good]
            out[side] = ids, found.codes[found.usable]
        return out

    def encode_pairs(
        self, pairs: Dataset, *, cache: Path | None = None, progress: Progress | None = None
    ) -> tuple[Dataset, dict[Modality, Encoded]]:
        """The pairs whose picture and text can be used, and both sides of them; rows fit together.

        The others are noted in ``pairs.problems``.
        """
        work = {"cache": cache, "problems": pairs.problems, "progress": progress}
        found: dict[Modality, Encoded] = {
            side: self.encode(side, sources, **work)  # type: ignore[arg-type]
            for side, sources in pair_sources(pairs).items()
        }
        good = found["image"].usable & found["text"].usable
        kept: dict[Modality, Encoded] = {
            side: Encoded(one.codes[good], one.usable[good], one.features[good])
            for side, one in found.items()
        }
        return keep_rows(pairs, good), kept

    def batches(
        self,
        data: Dataset,
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
        size: int = 4096,
    ) -> Iterator[DocumentBatch]:
        """Yield the encoded items of ``data`` in order, at most ``size`` per batch.

        Items without any usable picture or text, or with fields that cannot be stored, are noted
        in ``data.problems`` and left out.
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
            packed, present = empty_columns(len(part), self.bits)
            for modality in MODALITIES:
                places = [rows[modality].get(id_, -1) for id_ in ids]
                present[modality][:] = np.array(places, np.int64) >= 0
                here = [place for place in places if place >= 0]
                packed[modality][present[modality]] = codes[modality][1].packed[here]
            yield DocumentBatch(ids, packed, present, fields)

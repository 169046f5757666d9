"""Encoder: the interface of everything that turns pictures and texts into codes.

:func:`xmodal.load_encoder` returns :class:`~xmodal.encoders.torch_encoder.TrainedEncoder`, computed
by torch, or :class:`~xmodal.encoders.onnx_encoder.PortableEncoder`, computed by onnxruntime.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.data.images import Source
from xmodal.data.items import Item
from xmodal.data.preprocessing import Preprocessing
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.encoders.calibration import Confidence
from xmodal.errors import ConfigError
from xmodal.features.extract import Array, Usable, keep_usable, pair_sources
from xmodal.features.rows import FeatureRows, Features
from xmodal.index.documents import DocumentBatch, fields_to_json, to_offsets
from xmodal.modality import MODALITIES, Modality
from xmodal.vectors import Int8, to_int8


class Encoded(NamedTuple):
    """Result of encoding ``n`` sources; rows of unusable sources have no meaning.

    ``usable`` (n,) bool; ``features`` (n, dim): inputs of the tower, float16 of length 1 or uint8
    pixels. ``outputs`` (n, bits) float32: outputs of the tower before tanh, whose signs are the
    codes; None for an encoder that computes codes alone.
    """

    codes: BinaryCodes
    usable: Usable
    features: Features
    outputs: Array | None = None


class EncodedSources(NamedTuple):
    """Codes of all usable pictures, or of all usable captions, of a dataset.

    ``ids``: the n items that have one. The codes of item i are ``offsets[i]:offsets[i + 1]``,
    ``offsets`` is (n + 1,). ``positions`` (m,): the place of each code's source among those of its
    item. ``vectors`` (m, bits) int8: of the outputs, or None.
    """

    ids: list[str]
    codes: BinaryCodes
    offsets: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    vectors: Int8 | None = None

    def rows_of(self, item: int) -> range:
        """Return the rows of ``codes`` of an item, which is given by its place in ``ids``."""
        return range(int(self.offsets[item]), int(self.offsets[item + 1]))

    def positions_of(self, item: int | None) -> list[int]:
        """Return the positions of the coded sources of an item; None has no codes."""
        return [] if item is None else [int(self.positions[row]) for row in self.rows_of(item)]

    def id_of_codes(self) -> list[str]:
        """Return the id of the item of each code, (m,)."""
        counts = np.diff(self.offsets).tolist()
        return [id_ for id_, count in zip(self.ids, counts, strict=True) for _ in range(count)]


class Encoder(ABC):
    """Encoder of pictures and texts to binary codes.

    ``precision``: number format of its backbones, or "int8" for quantized weights. ``confidence``:
    calibration, from similarities to the probability that a hit is right. ``about``: method,
    settings, data and figures. ``split``: the ids of each part of its data.

    >>> encoder = xmodal.load_encoder("my.model")
    >>> encoder.encode_texts(["a red circle", "a blue star"]).packed.shape == (2, encoder.bits // 8)
    True
    """

    precision: str
    confidence: Confidence
    about: dict[str, Any]
    split: Mapping[str, Sequence[str]]

    @staticmethod
    def from_pretrained(
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        **options: Any,
    ) -> Encoder:
        """Load an encoder from a folder, or from the model hub by its name.

        ``name``: a folder; ``OWNER/NAME`` if there is no such folder; or ``hf://OWNER/NAME``.
        ``revision``: branch, tag or commit, the latter for codes that never change. ``token``: for
        private models. ``options``: those of :func:`xmodal.load_encoder`. Raises its errors and
        those of :func:`xmodal.encoders.hub.download`.
        """
        from xmodal.encoders.hub import find_encoder
        from xmodal.encoders.load import load_encoder

        return load_encoder(find_encoder(name, revision=revision, token=token), **options)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Upload a portable encoder to the model hub; return the address of the commit.

        ``name`` and ``options``: see :func:`xmodal.encoders.hub_push.push`, whose errors are
        raised. Raises ConfigError for an encoder that is not portable.
        """
        raise ConfigError(
            "only a portable encoder has no dependence on other files: make one with xmodal "
            "export, or push it with xmodal export --hub"
        )

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

    @property
    def preprocessing(self) -> Preprocessing | None:
        """Preparation of pictures by which :meth:`encode` accepts pixels; None if it does not."""
        return None

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

    def outputs(self, modality: Modality, features: Features) -> Array | None:
        """Return the outputs before tanh (n, bits) of features (n, dim), whose signs are the bits.

        None for an encoder that computes codes alone.
        """
        return None

    def has_known_token(self, text: str) -> bool:
        """Return whether the text backbone knows a token of a text; otherwise its code means
        nothing.

        A known token is a piece of the tokenizer's vocabulary that is longer than one letter, or,
        with the backbone ``words``, a word of the training.
        """
        return True

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
    ) -> dict[Modality, EncodedSources]:
        """Encode all pictures and all captions; equal paths and equal captions are encoded once.

        Unusable sources are recorded in ``problems``, by default those of ``data``.
        """
        recorded = problems if problems is not None else data.problems
        options: dict[str, Any] = {"cache": cache, "problems": recorded, "progress": progress}
        return {modality: self._encode_all(modality, data, options) for modality in MODALITIES}

    def _encode_all(
        self, modality: Modality, data: Dataset, options: Mapping[str, Any]
    ) -> EncodedSources:
        """Encode the sources of one modality; without any, the backbone is not loaded."""
        different = {source: row for row, source in enumerate(_different(data, modality))}
        if different:
            codes, usable, _, outputs = self.encode(modality, list(different), **options)
            vectors = None if outputs is None else to_int8(outputs)
        else:
            codes, usable = BinaryCodes.empty(self.bits), np.zeros(0, np.bool_)
            vectors = np.zeros((0, self.bits), np.int8)
        ids: list[str] = []
        rows: list[int] = []
        positions: list[int] = []
        offsets = [0]
        for item in data:
            for position, source in enumerate(item.sources(modality)):
                if usable[different[source]]:
                    rows.append(different[source])
                    positions.append(position)
            if len(rows) > offsets[-1]:
                ids.append(item.id)
                offsets.append(len(rows))
        kept = np.array(rows, np.int64)
        return EncodedSources(
            ids,
            codes[kept],
            np.array(offsets),
            np.array(positions, np.int64),
            None if vectors is None else vectors[kept],
        )

    def encode_pairs(
        self, pairs: Dataset, *, cache: Path | None = None, progress: Progress | None = None
    ) -> tuple[Dataset, dict[Modality, Encoded]]:
        """Return the pairs with a usable picture and caption, and all their sources encoded.

        The rows are those of :func:`~xmodal.features.extract.pair_sources` of the returned pairs,
        which are without unusable pictures and captions. Those are recorded in ``pairs.problems``.
        """
        options = {"cache": cache, "problems": pairs.problems, "progress": progress}
        encoded: dict[Modality, Encoded] = {
            modality: self.encode(modality, sources, **options)  # type: ignore[arg-type]
            for modality, sources in pair_sources(pairs).items()
        }
        usable, kept = keep_usable(pairs, {m: one.usable for m, one in encoded.items()})
        rows_of: dict[Modality, Encoded] = {}
        for modality, (codes, is_usable, features, outputs) in encoded.items():
            rows = kept[modality]
            chosen = None if outputs is None else outputs[rows]
            kept_features = FeatureRows.of(features).take(rows)
            rows_of[modality] = Encoded(codes[rows], is_usable[rows], kept_features, chosen)
        return usable, rows_of

    def batches(
        self,
        data: Dataset,
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
        size: int = 4096,
        vectors: bool = True,
    ) -> Iterator[DocumentBatch]:
        """Yield the encoded items of ``data`` in order, at most ``size`` per batch.

        ``vectors``: also the int8 vectors of the outputs, if the encoder has outputs.

        The pictures and captions that have a code stand first in the fields "image" and "text", in
        the order of the codes. Items without a usable picture or text, and items with fields that
        cannot be stored, are recorded in ``data.problems`` and left out.
        """
        encoded = self.encode_data(data, cache=cache, progress=progress)
        rows = {m: {id_: row for row, id_ in enumerate(one.ids)} for m, one in encoded.items()}
        items = [item for item in data if any(item.id in rows[m] for m in MODALITIES)]
        for start in range(0, len(items), size):
            ids, fields = [], []
            for item in items[start : start + size]:
                coded = {m: encoded[m].positions_of(rows[m].get(item.id)) for m in MODALITIES}
                try:
                    fields.append(fields_to_json(_coded_first(item, coded).document(), item.id))
                    ids.append(item.id)
                except ConfigError as error:
                    data.problems.add("fields not storable", f"{item.id} ({error})")
            packed, offsets, columns = {}, {}, {}
            for modality, one in encoded.items():
                places = [rows[modality].get(id_) for id_ in ids]
                spans = [range(0) if place is None else one.rows_of(place) for place in places]
                chosen = np.array([row for span in spans for row in span], np.int64)
                packed[modality] = one.codes.packed[chosen]
                offsets[modality] = to_offsets([len(span) for span in spans])
                if one.vectors is not None:
                    columns[modality] = one.vectors[chosen]
            has_vectors = vectors and len(columns) == len(encoded)
            yield DocumentBatch(ids, packed, offsets, fields, columns if has_vectors else {})


def _coded_first(item: Item, coded: Mapping[Modality, list[int]]) -> Item:
    """Return the item with the sources at the positions ``coded`` first, then the others."""
    ordered: dict[Modality, tuple[Any, ...]] = {}
    for modality, positions in coded.items():
        sources = item.sources(modality)
        others = [place for place in range(len(sources)) if place not in set(positions)]
        ordered[modality] = tuple(sources[place] for place in [*positions, *others])
    if all(ordered[modality] == item.sources(modality) for modality in MODALITIES):
        return item
    return replace(item, images=ordered["image"], captions=ordered["text"])


def _different(data: Dataset, modality: Modality) -> dict[Any, None]:
    """Return the different sources of all items, in order of appearance."""
    return dict.fromkeys(source for item in data for source in item.sources(modality))

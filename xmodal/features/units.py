"""Features of items, and the units that training and evaluation count.

A *unit* is one thing with its pictures and captions: all items of one group (see
:mod:`xmodal.data.groups`). Five rows of a table that name the same picture are one unit with one
picture and five captions, whether the rows have ids of their own or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xmodal.data.dataset import Dataset, Item, Problems, Progress
from xmodal.features.backbones import ImageBackbone, TextBackbone
from xmodal.features.extract import (
    Array,
    Usable,
    image_features,
    keep_usable,
    source_offsets,
    text_features,
)
from xmodal.features.rows import FeatureRows, Features, Int64
from xmodal.modality import MODALITIES, Modality

Bool = npt.NDArray[np.bool_]


class FeatureSource(Protocol):
    """Maps the pictures and captions of items to features."""

    @property
    def raw(self) -> bool:
        """Whether the features of pictures are pixels."""

    def features(
        self, modality: Modality, items: Sequence[Item], problems: Problems
    ) -> tuple[Features, Usable]:
        """Return features (m, d) and which are usable, (m,), of all sources of the items.

        Rows are in the order of the items and of the sources of each item, see
        ``Item.sources``. Unusable sources are recorded in ``problems``.
        """


@dataclass(frozen=True)
class BackboneSource:
    """Features computed by backbones; ``cache``: folder of cached features."""

    image: ImageBackbone
    text: TextBackbone
    cache: Path | None = None
    progress: Progress | None = None

    @property
    def raw(self) -> bool:
        """Whether the features of pictures are pixels."""
        return self.image.raw

    def features(
        self, modality: Modality, items: Sequence[Item], problems: Problems
    ) -> tuple[Array, Usable]:
        """Compute the features; see :meth:`FeatureSource.features`."""
        options: dict[str, Any] = {
            "cache": self.cache,
            "problems": problems,
            "progress": self.progress,
        }
        sources = [source for item in items for source in item.sources(modality)]
        if modality == "image":
            return image_features(self.image, sources, **options)
        return text_features(self.text, [str(source) for source in sources], **options)


@dataclass(frozen=True)
class Units:
    """``n`` units with ``p`` pictures and ``c`` captions.

    ``ids``: names of the groups, sorted, so that the order of the input has no effect. ``image``
    (p, d_image) and ``text`` (c, d_text): features, unit after unit; those of unit i are the rows
    ``image_offsets[i]:image_offsets[i + 1]``, offsets are (n + 1,). ``labels`` (n, classes)
    multi-hot, ``labelled`` (n,). ``text_key`` (c,): equal numbers for equal captions.
    ``image_ids``, ``text_ids``: names of the pictures and captions: the id of their item, with
    ``#0``, ``#1``, ... if it has several.
    """

    ids: list[str]
    image: Features
    text: Features
    image_offsets: Int64
    text_offsets: Int64
    labels: Bool
    labelled: Bool
    text_key: Int64
    image_ids: list[str]
    text_ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def features(self, modality: Modality) -> Features:
        """Return the features of all pictures, or of all captions."""
        return self.image if modality == "image" else self.text

    def offsets(self, modality: Modality) -> Int64:
        """Return the offsets of the pictures, or of the captions, (n + 1,)."""
        return self.image_offsets if modality == "image" else self.text_offsets

    def unit_of_rows(self, modality: Modality) -> Int64:
        """Return the unit of each picture (p,), or of each caption (c,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets(modality)))

    def take(self, units: Int64) -> Units:
        """Return the units at ``units``, which must be ascending positions."""
        rows = {modality: _rows_of(self.offsets(modality), units) for modality in MODALITIES}
        image, text = rows["image"], rows["text"]
        return Units(
            [self.ids[unit] for unit in units],
            FeatureRows.of(self.image).take(image),
            FeatureRows.of(self.text).take(text),
            _to_offsets(np.diff(self.image_offsets)[units]),
            _to_offsets(np.diff(self.text_offsets)[units]),
            self.labels[units],
            self.labelled[units],
            self.text_key[text],
            [self.image_ids[row] for row in image],
            [self.text_ids[row] for row in text],
        )

    def caption_pairs(self) -> tuple[Int64, Int64]:
        """Return a row of ``image`` and a row of ``text`` for each (picture, caption) of a unit.

        A unit with one picture has one pair a caption; a unit with several pictures pairs its
        captions with its pictures in turn.
        """
        unit = self.unit_of_rows("text")
        position = np.arange(len(unit)) - self.text_offsets[unit]
        pictures = np.diff(self.image_offsets)[unit]
        return self.image_offsets[unit] + position % pictures, np.arange(len(unit))


@dataclass(frozen=True)
class FeatureTable:
    """Features of the usable pictures and captions of ``data``, in the order of the items.

    ``rows[modality]``: (m, d); those of item i are ``offsets[modality][i]`` to
    ``offsets[modality][i + 1]``. Every item has at least one picture and one caption.
    """

    data: Dataset
    rows: dict[Modality, FeatureRows]
    offsets: dict[Modality, Int64]

    @classmethod
    def of(cls, pairs: Dataset, source: FeatureSource) -> FeatureTable:
        """Compute the features of pairs; ``data`` is without unusable pictures and captions.

        Those are recorded in ``pairs.problems``; an item without a usable picture or caption is
        dropped.
        """
        features: dict[Modality, FeatureRows] = {}
        usable: dict[Modality, Usable] = {}
        for modality in MODALITIES:
            found, usable[modality] = source.features(modality, pairs.items, pairs.problems)
            features[modality] = FeatureRows.of(found)
        data, kept = keep_usable(pairs, usable)
        rows = {m: x if kept[m].all() else x.take(kept[m]) for m, x in features.items()}
        return cls(data, rows, {m: source_offsets(data, m) for m in MODALITIES})

    def pair_rows(self, part: Dataset) -> tuple[Int64, Int64, Int64]:
        """Return one row for each caption of the items of ``part``, in their order.

        The arrays are rows of the pictures, rows of the captions, and positions of the items in
        ``part``. Captions of an item with several pictures are paired with them in turn.
        """
        position = {id_: row for row, id_ in enumerate(self.data.ids)}
        items = np.array([position[id_] for id_ in part.ids], np.int64)
        first = {modality: self.offsets[modality][items] for modality in MODALITIES}
        count = {modality: np.diff(self.offsets[modality])[items] for modality in MODALITIES}
        item = np.repeat(np.arange(len(items)), count["text"])
        number = np.arange(len(item)) - (np.cumsum(count["text"]) - count["text"])[item]
        return (
            first["image"][item] + number % count["image"][item],
            first["text"][item] + number,
            item,
        )

    def units(self, part: Dataset, classes: Sequence[str] = ()) -> Units:
        """Return the units of the items of ``part``, which are items of this table with a group.

        A unit has the labels of all its items; it is labelled if one of them is.
        """
        position = {id_: row for row, id_ in enumerate(self.data.ids)}
        members = sorted(part, key=lambda item: (item.group or item.id, item.id))
        builder = _UnitsBuilder(self, position)
        labels, labelled = [], []
        for group, found in groupby(members, key=lambda item: item.group or item.id):
            items = list(found)
            builder.add(group, items)
            of_items, known = Dataset(tuple(items)).labels(classes)
            labels.append(of_items.any(axis=0))
            labelled.append(known.any())
        multi_hot = np.array(labels, np.bool_).reshape(len(labels), len(classes))
        return builder.finish(multi_hot, np.array(labelled, np.bool_))


class _UnitsBuilder:
    """Collects the rows and names of units; equal pictures of a unit are one picture."""

    def __init__(self, table: FeatureTable, position: dict[str, int]) -> None:
        self._table, self._position = table, position
        self._ids: list[str] = []
        self._rows: dict[Modality, list[int]] = {modality: [] for modality in MODALITIES}
        self._names: dict[Modality, list[str]] = {modality: [] for modality in MODALITIES}
        self._ends: dict[Modality, list[int]] = {modality: [0] for modality in MODALITIES}

    def add(self, group: str, items: Sequence[Item]) -> None:
        """Add a unit of ``items``."""
        self._ids.append(group)
        for modality in MODALITIES:
            found = list(self._named_rows(modality, items))
            if modality == "image" and len(found) > 1:
                values = self._table.rows["image"][[row for row, _ in found]]
                by_bytes = zip(map(bytes, values[::-1]), found[::-1], strict=True)
                found = list(dict(by_bytes).values())[::-1]
            self._rows[modality] += [row for row, _ in found]
            self._names[modality] += [name for _, name in found]
            self._ends[modality].append(len(self._rows[modality]))

    def finish(self, labels: Bool, labelled: Bool) -> Units:
        """Return the units."""
        image, text = (self._table.rows[m].take(self._rows[m]) for m in MODALITIES)
        return Units(
            self._ids,
            image,
            text,
            np.array(self._ends["image"]),
            np.array(self._ends["text"]),
            labels,
            labelled,
            _row_keys(text),
            self._names["image"],
            self._names["text"],
        )

    def _named_rows(self, modality: Modality, items: Sequence[Item]) -> Iterator[tuple[int, str]]:
        offsets = self._table.offsets[modality]
        for item in items:
            start, end = (int(offsets[self._position[item.id] + k]) for k in (0, 1))
            for number, row in enumerate(range(start, end)):
                yield row, item.id if end - start == 1 else f"{item.id}#{number}"


def _row_keys(features: Features) -> Int64:
    """Return a number for each row, (m,): equal rows have equal numbers, in order of appearance."""
    digests = np.empty(len(features), "V16")
    for part, values in FeatureRows.of(features).blocks():
        hashes = [hashlib.blake2b(row, digest_size=16).digest() for row in values]
        digests[part] = np.frombuffer(b"".join(hashes), "V16")
    halves = digests.view(np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: of equal rows the first one is first
    new = np.ones(len(order), np.bool_)
    new[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
    first = order[new]
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    keys = np.empty(len(order), np.int64)
    keys[order] = number[np.cumsum(new) - 1]
    return keys


def _to_offsets(counts: npt.NDArray[np.integer]) -> Int64:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _rows_of(offsets: Int64, units: Int64) -> Int64:
    """Return the rows of the units, unit after unit."""
    parts = [np.arange(offsets[unit], offsets[unit + 1]) for unit in units]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)

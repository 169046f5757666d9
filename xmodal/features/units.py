"""Features of items, and the units that training and evaluation count.

A *unit* is one thing with its pictures and captions: all items of one group (see
:mod:`xmodal.data.groups`). Five rows of a table that name the same picture are one unit with one
picture and five captions, whether the rows have ids of their own or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xmodal.data.dataset import Dataset
from xmodal.data.feature_items import ranges
from xmodal.data.items import Item
from xmodal.data.names import Names, take_names
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.features.backbones import ImageBackbone, TextBackbone
from xmodal.features.extract import (
    Array,
    Usable,
    image_features,
    keep_usable,
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

    ids: Sequence[str]
    image: Features
    text: Features
    image_offsets: Int64
    text_offsets: Int64
    labels: Bool
    labelled: Bool
    text_key: Int64
    image_ids: Sequence[str]
    text_ids: Sequence[str]

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
        image, text = (
            ranges(self.offsets(m)[units], np.diff(self.offsets(m))[units]) for m in MODALITIES
        )
        return Units(
            take_names(self.ids, units),
            FeatureRows.of(self.image).take(image),
            FeatureRows.of(self.text).take(text),
            _to_offsets(np.diff(self.image_offsets)[units]),
            _to_offsets(np.diff(self.text_offsets)[units]),
            self.labels[units],
            self.labelled[units],
            self.text_key[text],
            take_names(self.image_ids, image),
            take_names(self.text_ids, text),
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
        return cls(data, rows, {m: data.offsets(m) for m in MODALITIES})

    def source_name(self, modality: Modality, row: int) -> str:
        """Return the name of a picture or caption: the id of its item, with #0, #1 of several."""
        offsets = self.offsets[modality]
        item = int(np.searchsorted(offsets, row, "right")) - 1
        id_ = self._ids[item]
        several = offsets[item + 1] - offsets[item] > 1
        return f"{id_}#{row - offsets[item]}" if several else id_

    @cached_property
    def _ids(self) -> Sequence[str]:
        return self.data.ids

    def pair_rows(self, part: Dataset) -> tuple[Int64, Int64, Int64]:
        """Return one row for each caption of the items of ``part``, in their order.

        The arrays are rows of the pictures, rows of the captions, and positions of the items in
        ``part``. Captions of an item with several pictures are paired with them in turn.
        """
        items = self.data.positions_of(part)
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

        A unit has the labels of all its items; it is labelled if one of them is. Equal pictures of
        a unit are one picture.
        """
        groups, order = part.grouping, part.group_order()
        items, codes = self.data.positions_of(part)[order], groups.codes[order]
        first = np.ones(len(order), np.bool_)
        first[1:] = codes[1:] != codes[:-1]
        starts, unit = np.flatnonzero(first), np.cumsum(first) - 1
        rows: dict[Modality, Int64] = {}
        ends: dict[Modality, Int64] = {}
        for modality in MODALITIES:
            counts = np.diff(self.offsets[modality])[items]
            rows[modality] = ranges(self.offsets[modality][:-1][items], counts)
            sizes = np.bincount(unit, counts, minlength=len(starts)).astype(np.int64)
            ends[modality] = _to_offsets(sizes)
        rows["image"], ends["image"] = self._distinct(rows["image"], ends["image"])
        labels, labelled = part.labels(classes)
        text = self.rows["text"].take(rows["text"])
        return Units(
            take_names(groups.names, codes[starts]),
            self.rows["image"].take(rows["image"]),
            text,
            ends["image"],
            ends["text"],
            np.logical_or.reduceat(labels[order], starts) if len(starts) else labels,
            np.logical_or.reduceat(labelled[order], starts) if len(starts) else labelled,
            row_keys(text),
            *(Names(partial(self.source_name, m), rows[m]) for m in MODALITIES),
        )

    def _distinct(self, rows: Int64, ends: Int64) -> tuple[Int64, Int64]:
        """Return the rows of the pictures of units without repeated ones, and their offsets."""
        sizes = np.diff(ends)
        several = np.flatnonzero(sizes > 1)
        if not len(several):
            return rows, ends
        chosen = np.split(rows, ends[1:-1])
        for unit in several.tolist():
            of_unit = chosen[unit][::-1].tolist()
            by_bytes = zip(map(bytes, self.rows["image"][of_unit]), of_unit, strict=True)
            chosen[unit] = np.array(list(dict(by_bytes).values())[::-1], np.int64)
        return np.concatenate(chosen), _to_offsets(np.array([len(one) for one in chosen]))


def row_keys(features: Features) -> Int64:
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

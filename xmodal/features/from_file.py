"""Features from a file in place of backbones: matching of items, and lookup of their features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.config import FEATURES
from xmodal.data.dataset import Dataset
from xmodal.data.feature_file import FeatureFile
from xmodal.data.feature_items import FeatureItems, Int64
from xmodal.data.items import FeatureName, Item
from xmodal.data.packed import is_picture_file
from xmodal.data.problems import Problems
from xmodal.errors import ConfigError, DataError, ModelError
from xmodal.features.backbones import ImageBackbone, TextBackbone
from xmodal.features.extract import (
    Array,
    Usable,
    image_features,
    text_features,
    usable_rows,
)
from xmodal.features.rows import FeatureRows
from xmodal.modality import MODALITIES, Modality

CHECKED, MIN_COSINE = 8, 0.99
"""Pictures and captions that are compared with a named backbone, and their smallest cosine."""
UNUSABLE = {
    "image": "feature of a picture is zero, NaN or infinite",
    "text": "feature of a caption is zero, NaN or infinite",
}


@dataclass(frozen=True)
class FileSource:
    """Features of a file, looked up by picture and caption; a feature source of units.

    ``row_of[modality]``: row of ``file.rows[modality]`` of each picture or caption.
    """

    file: FeatureFile
    row_of: Mapping[Modality, Mapping[Any, int]]
    raw: bool = field(default=False, init=False)

    def features(
        self, modality: Modality, items: Sequence[Item], problems: Problems
    ) -> tuple[FeatureRows, Usable]:
        """Return the features of all sources of the items; see ``FeatureSource.features``."""
        if isinstance(items, FeatureItems) and items.file is self.file:
            places = items.rows.get(modality, np.zeros(0, np.int64))
            return self._find(modality, places, partial(items.name, modality), problems)
        sources = [source for item in items for source in item.sources(modality)]
        return self.find(modality, sources, problems)

    def rows(
        self, modality: Modality, sources: Sequence[Any], problems: Problems | None
    ) -> tuple[Array, Usable]:
        """Return features (n, d), float16 of length 1, and which are usable, (n,) bool.

        Zero, NaN and infinite features are unusable: they are recorded in ``problems``; without
        ``problems`` the first one raises DataError. So does a source without a feature.
        """
        features, usable = self.find(modality, sources, problems)
        return features[:], usable

    def find(
        self, modality: Modality, sources: Sequence[Any], problems: Problems | None
    ) -> tuple[FeatureRows, Usable]:
        """Return the features of sources, read by rows, and which are usable; see :meth:`rows`."""
        known = self.row_of[modality]
        places = np.fromiter((known.get(one, -1) for one in sources), np.int64, len(sources))
        return self._find(modality, places, sources.__getitem__, problems)

    def _find(
        self,
        modality: Modality,
        places: Int64,
        name: Callable[[int], Any],
        problems: Problems | None,
    ) -> tuple[FeatureRows, Usable]:
        """Return the features at rows of the file, -1 for none, and which are usable."""
        stored = self.file.rows.get(modality, np.zeros((0, 1), np.float16))
        features, usable = FeatureRows(stored, places, scaled=True), np.zeros(len(places), np.bool_)
        for part, values in features.blocks():
            usable[part] = usable_rows(values)
        for row in np.flatnonzero(~usable).tolist():
            kind = UNUSABLE[modality] if places[row] >= 0 else f"{modality} without a feature"
            if problems is None:
                raise DataError(f"{kind} in {self.file.name}: {str(name(row))[:80]!r}")
            problems.add(kind, str(name(row))[:80])
        return features, usable

    def fingerprint(self, modality: Modality) -> str:
        """Return the fingerprint of features without a backbone: their kind and dimension."""
        return f"{FEATURES}-{modality}-{self.file.dim(modality)}"


def with_features(data: Dataset, file: FeatureFile) -> tuple[Dataset, FileSource]:
    """Return the items that have features in ``file``, and the source of these features.

    An item is matched by its id, else by the path, name or stem of its picture; without ids in the
    file, by order. Caption j of all items of one id of the file, in their order, has its text
    feature j. Items without pictures or captions get a :class:`FeatureName` for each feature.
    Items of one id of the file get one group. Items without features are recorded in
    ``data.problems``.

    Raises DataError if numbers of pictures or captions differ, and if no item has features.
    """
    if isinstance(data.items, FeatureItems) and data.items.file is file:
        own = data.items.with_sources()
        rows = {modality: _RowsByName(own, modality) for modality in MODALITIES}
        return replace(data, items=own), FileSource(file, rows)
    matcher = _Matcher(data, file)
    items = tuple(item for item in map(matcher.attach, range(len(data))) if item is not None)
    if not items:
        raise DataError(
            f"none of {len(data):,} items of {data.name} has features in {file.name}: an item is "
            f"{data.items[0].id!r}, an id of the file is {file.names[0]!r}, expected equal ids, or "
            "ids that are the path, name or stem of a picture"
        )
    return replace(data, items=items), FileSource(file, matcher.row_of)


class _RowsByName(Mapping[Any, int]):
    """Row of the feature of each name, collected at the first use."""

    def __init__(self, items: FeatureItems, modality: Modality) -> None:
        self._items, self._modality = items, modality

    @cached_property
    def _row_of(self) -> dict[Any, int]:
        names = (name for row in range(len(self._items)) for name in self._names(row))
        return dict(zip(names, self._items.rows.get(self._modality, ()), strict=True))

    def _names(self, row: int) -> list[FeatureName]:
        return self._items.names_of(self._modality, row)

    def __getitem__(self, name: Any) -> int:
        return int(self._row_of[name])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._row_of)

    def __len__(self) -> int:
        return len(self._row_of)


class _Matcher:
    """Finds the features of items. ``row_of``: rows of their pictures and captions."""

    def __init__(self, data: Dataset, file: FeatureFile) -> None:
        self.data, self.file = data, file
        self.row_of: dict[Modality, dict[Any, int]] = {modality: {} for modality in MODALITIES}
        self._place = {id_: row for row, id_ in enumerate(file.names)} if file.ids else None
        if self._place is None and len(data) != len(file):
            raise DataError(
                f"{file.name} has features of {len(file):,} items and no ids, {data.name} has "
                f"{len(data):,} items, expected equal numbers: add ids to the file (.npz)"
            )
        found = [self._places(row, item) for row, item in enumerate(data)]
        self._places_of_items = found
        self._captions = self._caption_rows()

    def attach(self, row: int) -> Item | None:
        """Return an item with a source for each of its features; None without features."""
        item, places = self.data.items[row], self._places_of_items[row]
        if not places:
            self.data.problems.add(f"item without features in {self.file.name}", item.id)
            return None
        pictures = [int(p) for place in places for p in self.file.positions("image", place)]
        captions = self._captions.get(row, [])
        item = replace(
            item,
            images=item.images or tuple(_names(item.id, len(pictures))),
            captions=item.captions or tuple(_names(item.id, len(captions))),
            group=self.file.names[places[0]],
        )
        if "image" in self.file.rows and len(item.images) != len(pictures):
            raise self._mismatch(item, "pictures", len(item.images), len(pictures))
        self.row_of["image"].update(zip(item.images, pictures, strict=False))
        self.row_of["text"].update(zip(item.captions, captions, strict=False))
        return item

    def _places(self, row: int, item: Item) -> list[int]:
        """Return the place of an item in the file, or those of its pictures; empty if unknown."""
        if self._place is None:
            return [row]
        if item.id in self._place:
            return [self._place[item.id]]
        found = [self._place_of_picture(image) for image in item.images]
        return [place for place in found if place is not None] if None not in found else []

    def _place_of_picture(self, image: Path | FeatureName) -> int | None:
        assert self._place is not None
        path = Path(image)
        for name in (str(image), path.as_posix(), path.name, path.stem):
            if name in self._place:
                return self._place[name]
        return None

    def _caption_rows(self) -> dict[int, list[int]]:
        """Return the text features of each item, by the rows of the items."""
        members: dict[int, list[int]] = {}
        for row, places in enumerate(self._places_of_items):
            if places:
                members.setdefault(places[0], []).append(row)
        captions: dict[int, list[int]] = {}
        for place, rows in members.items():
            features = self.file.positions("text", place).tolist()
            counts = [len(self.data.items[row].captions) for row in rows]
            if sum(counts) == 0 and len(rows) == 1:
                counts = [len(features)]
            if "text" in self.file.rows and sum(counts) != len(features):
                item = self.data.items[rows[0]]
                raise self._mismatch(item, "captions", sum(counts), len(features))
            for row, count in zip(rows, counts, strict=True):
                captions[row], features = features[:count], features[count:]
        return captions

    def _mismatch(self, item: Item, what: str, found: int, stored: int) -> DataError:
        return DataError(
            f"item {item.id!r} of {self.data.name} has {found} {what}, {self.file.name} has "
            f"{stored} features of them, expected equal numbers in the order of the data"
        )


def _names(id_: str, count: int) -> list[FeatureName]:
    """Return names for ``count`` features of an item."""
    return [FeatureName(id_ if count == 1 else f"{id_}#{number}") for number in range(count)]


def check_dim(file: FeatureFile, modality: Modality, expected: int) -> None:
    """Raise ConfigError unless the features of a file have the expected dimension."""
    found = file.dim(modality)
    if found != expected:
        has = "no such features" if found is None else f"features of {found:,} numbers"
        raise ConfigError(
            f"{file.name} has {has} for {modality}, expected {expected:,} numbers: name the "
            f"backbone that made them with --{modality}-backbone, or other features"
        )


def check_backbone(
    source: FileSource,
    data: Dataset,
    modality: Modality,
    backbone: ImageBackbone | TextBackbone,
    cache: Path | None,
) -> None:
    """Raise ModelError unless ``backbone`` made the features of ``modality`` in a file.

    The dimension is compared, and the features of up to ``CHECKED`` pictures or captions that are
    at hand.
    """
    check_dim(source.file, modality, backbone.dim)
    at_hand: list[Any] = [
        one for item in data for one in item.sources(modality)[:1] if _is_at_hand(one)
    ]
    step = max(1, len(at_hand) // CHECKED)
    chosen = at_hand[::step][:CHECKED]
    options: dict[str, Any] = {"cache": cache, "problems": Problems()}
    computed, good = (
        image_features(backbone, chosen, **options)  # type: ignore[arg-type]
        if modality == "image"
        else text_features(backbone, chosen, **options)  # type: ignore[arg-type]
    )
    stored, usable = source.rows(modality, chosen, Problems())
    cosine = (computed.astype(np.float32) * stored.astype(np.float32)).sum(axis=1)
    rows = np.flatnonzero(good & usable)
    if len(rows) and cosine[rows].min() < MIN_COSINE:
        worst = int(rows[cosine[rows].argmin()])
        raise ModelError(
            f"the {modality} features in {source.file.name} are not those of {backbone.spec}: "
            f"cosine {cosine[worst]:.3f} for {str(chosen[worst])[:60]!r}, expected at least "
            f"{MIN_COSINE}: name the backbone that made them, or leave --{modality}-backbone out"
        )


def _is_at_hand(source: Any) -> bool:
    """Whether a picture or a caption can be encoded."""
    if isinstance(source, FeatureName):
        return False
    return is_picture_file(source) if isinstance(source, Path) else True

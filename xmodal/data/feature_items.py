"""Items of a file of features: arrays for what is known of them, no object for each item."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from xmodal.data.items import FeatureName, Item, Labels
from xmodal.data.lazy_items import Grouping, LazyItems
from xmodal.data.names import Names, digest_order
from xmodal.modality import MODALITIES, Modality

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xmodal.data.feature_file import FeatureFile

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FeatureItems(LazyItems):
    """``n`` items of ``file``: ``places`` (n,), their rows of its ids.

    ``rows[modality]`` (m,): rows of the features of all items, item after item; ``counts`` (n,):
    their number of each item. A modality that is absent has no features. ``split_names`` and
    ``labels``: of all items, (n,), or None. ``group``: the id of an item is its group, or with
    "hashed" the SHA-256 of the id; None: the items have no groups.
    """

    file: FeatureFile
    places: Int64
    rows: Mapping[Modality, Int64]
    counts: Mapping[Modality, Int64]
    split_names: list[str | None] | None = None
    labels: list[Labels] | None = None
    group: str | None = None

    @classmethod
    def of(cls, file: FeatureFile, *, labels: bool) -> FeatureItems:
        """Return all items of a file, without their features; ``labels``: with its labels."""
        split = None if file.split is None else list[str | None](file.split)
        known = list[Labels](file.labels) if labels and file.labels is not None else None
        return cls(file, np.arange(len(file)), {}, {}, split, known)

    def with_sources(self) -> FeatureItems:
        """Return the items with a name for each of their features, in groups by their id."""
        rows, counts = {}, {}
        for modality, offsets in self.file.offsets.items():
            counts[modality] = (offsets[1:] - offsets[:-1])[self.places]
            rows[modality] = ranges(offsets[:-1][self.places], counts[modality])
        return replace(self, rows=rows, counts=counts, group="id")

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> Item: ...

    @overload
    def __getitem__(self, place: slice) -> FeatureItems: ...

    def __getitem__(self, place: int | slice) -> Item | FeatureItems:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        row = range(len(self))[place]
        id_ = self.file.names[int(self.places[row])]
        images, captions = (tuple(self.names_of(m, row)) for m in MODALITIES)
        return Item(
            id_,
            images,
            captions,
            labels=None if self.labels is None else self.labels[row],
            split=None if self.split_names is None else self.split_names[row],
            group=None if self.group is None else self._group_name(int(self.places[row])),
        )

    def __iter__(self) -> Iterator[Item]:
        return (self[row] for row in range(len(self)))

    @property
    def ids(self) -> Sequence[str]:
        """Ids, (n,)."""
        return Names(self.file.names.__getitem__, self.places)

    @property
    def splits(self) -> list[str | None]:
        """Names of splits, (n,)."""
        return [None] * len(self) if self.split_names is None else self.split_names

    @property
    def label_sets(self) -> list[Labels]:
        """Labels, (n,)."""
        return [None] * len(self) if self.labels is None else self.labels

    @property
    def grouping(self) -> Grouping:
        """Groups of the items: each one is a group."""
        return Grouping(np.arange(len(self)), Names(self._group_name, self.places))

    def sizes(self, modality: Modality) -> Int64:
        """Return the number of features of each item, (n,)."""
        return self.counts.get(modality, np.zeros(len(self), np.int64))

    def group_order(self) -> Int64:
        """Return the positions of the items, ordered by the name of their group."""
        if self.group == "hashed":
            names = (id_.encode(errors="surrogatepass") for id_ in self.ids)
            return digest_order(hashlib.sha256(name).digest() for name in names)
        ids = self.ids
        return np.array(sorted(range(len(self)), key=ids.__getitem__), np.int64)

    def positions_of(self, part: LazyItems) -> Int64 | None:
        """Return the position of each item of a part of these items; None for other items."""
        if not isinstance(part, FeatureItems) or part.file is not self.file:
            return None
        position = np.full(len(self.file), -1, np.int64)
        position[self.places] = np.arange(len(self))
        return position[part.places]

    def take(self, rows: Int64) -> FeatureItems:
        """Return the items at ``rows``."""
        taken, counts = {}, {}
        for modality, stored in self.rows.items():
            counts[modality] = self.counts[modality][rows]
            taken[modality] = stored[ranges(self._starts(modality)[rows], counts[modality])]
        split, labels = (_taken(one, rows) for one in (self.split_names, self.labels))
        return replace(
            self,
            places=self.places[rows],
            rows=taken,
            counts=counts,
            split_names=split,
            labels=labels,
        )

    def select(self, kept: Mapping[Modality, npt.NDArray[np.bool_]]) -> FeatureItems:
        """Return the items with those features that ``kept`` selects."""
        rows, counts = {}, {}
        for modality, stored in self.rows.items():
            rows[modality] = stored[kept[modality]]
            item = np.repeat(np.arange(len(self)), self.counts[modality])
            counts[modality] = np.bincount(item[kept[modality]], minlength=len(self))
        return replace(self, rows=rows, counts=counts)

    def with_splits(self, splits: list[str | None]) -> FeatureItems:
        """Return the items with other splits."""
        return replace(self, split_names=splits)

    def with_labels(self, labels: list[Labels]) -> FeatureItems:
        """Return the items with other labels."""
        return replace(self, labels=labels)

    def with_groups(self) -> FeatureItems:
        """Return the items in groups whose names are hashes of the ids."""
        return replace(self, group="hashed")

    def names_of(self, modality: Modality, row: int) -> list[FeatureName]:
        """Return the names of the features of an item."""
        if modality not in self.rows:
            return []
        start, count = self._starts(modality)[row], self.counts[modality][row]
        place, offsets = int(self.places[row]), self.file.offsets[modality]
        id_, first = self.file.names[place], offsets[place]
        if offsets[place + 1] - first == 1:
            return [FeatureName(id_)] * int(count)
        rows = self.rows[modality][start : start + count]
        return [FeatureName(f"{id_}#{number}") for number in (rows - first).tolist()]

    def name(self, modality: Modality, source: int) -> FeatureName:
        """Return the name of the feature at a place of ``rows[modality]``."""
        starts = self._starts(modality)
        row = int(np.searchsorted(starts, source, "right")) - 1
        return self.names_of(modality, row)[source - int(starts[row])]

    @cached_property
    def _all_starts(self) -> dict[Modality, Int64]:
        return {}

    def _starts(self, modality: Modality) -> Int64:
        """Return the place of the first feature of each item, (n,)."""
        if modality not in self._all_starts:
            ends = np.cumsum(self.counts[modality])
            self._all_starts[modality] = ends - self.counts[modality]
        return self._all_starts[modality]

    def _group_name(self, place: int) -> str:
        id_ = self.file.names[place]
        if self.group != "hashed":
            return id_
        return hashlib.sha256(id_.encode(errors="surrogatepass")).hexdigest()


def ranges(starts: Int64, counts: Int64) -> Int64:
    """Return the numbers from each start on, ``counts`` of them, one range after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    numbers: Int64 = np.arange(total) + np.repeat(starts - (ends - counts), counts)
    return numbers


def _taken(values: list[Any] | None, rows: Int64) -> list[Any] | None:
    return None if values is None else [values[row] for row in rows.tolist()]

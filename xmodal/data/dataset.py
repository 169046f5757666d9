"""Sets of items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np
import numpy.typing as npt

from xmodal.data.items import ImageSource, Item, Labels
from xmodal.data.lazy_items import Grouping, LazyItems
from xmodal.data.names import hash_order, sample_size, take_names
from xmodal.data.problems import Problems
from xmodal.errors import ConfigError
from xmodal.modality import MODALITIES, Modality

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Dataset:
    """Items with unique ids, and the problems recorded while they were read.

    ``label_column``: what the labels were read from, for example a column of a table, or None.
    ``source``: what the items were read from, for example "items.csv (columns image and text)".
    ``class_captions``: the captions are the labels, because the data has none.

    >>> data = xmodal.read("photos", label_column="labels")
    >>> len(data), data.items[0].id, len(data.problems)
    (150, '00000.png', 0)
    """

    items: Sequence[Item]
    name: str = "data"
    problems: Problems = field(default_factory=Problems)
    label_column: str | None = None
    source: str = ""
    class_captions: bool = False

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @property
    def lazy(self) -> LazyItems | None:
        """The items if these are lazy; they have no pictures and no texts, only features."""
        return self.items if isinstance(self.items, LazyItems) else None

    def pictures(self) -> Iterator[ImageSource]:
        """Yield the pictures of all items; lazy items have none."""
        return (image for item in (() if self.lazy else self.items) for image in item.images)

    @property
    def ids(self) -> Sequence[str]:
        """The ids, in the order of the items."""
        return self.lazy.ids if self.lazy else [item.id for item in self.items]

    @property
    def splits(self) -> list[str | None]:
        """The names of the splits, in the order of the items."""
        return self.lazy.splits if self.lazy else [item.split for item in self.items]

    @property
    def label_sets(self) -> list[Labels]:
        """The labels, in the order of the items."""
        return self.lazy.label_sets if self.lazy else [item.labels for item in self.items]

    @property
    def grouping(self) -> Grouping:
        """The groups, numbered in the order of their first items; by default the ids are groups."""
        if self.lazy:
            return self.lazy.grouping
        number: dict[str, int] = {}
        names = (item.id if item.group is None else item.group for item in self.items)
        codes = np.array([number.setdefault(name, len(number)) for name in names], np.int64)
        return Grouping(codes, list(number))

    @property
    def classes(self) -> tuple[str, ...]:
        """All different labels, sorted."""
        return tuple(sorted({label for labels in set(self.label_sets) for label in labels or ()}))

    def sizes(self, modality: Modality) -> Int64:
        """Return the number of pictures or captions of each item, (n,)."""
        if self.lazy:
            return self.lazy.sizes(modality)
        return np.array([len(item.sources(modality)) for item in self.items], np.int64)

    def offsets(self, modality: Modality) -> Int64:
        """Return offsets (n + 1,) of the sources of each item among those of all items."""
        return np.concatenate([[0], np.cumsum(self.sizes(modality), dtype=np.int64)])

    def group_order(self) -> Int64:
        """Return the positions of the items, ordered by the name of their group, then by id."""
        if self.lazy:
            return self.lazy.group_order()
        groups, ids = self.grouping, self.ids
        names = [groups.names[code] for code in groups.codes.tolist()]
        return np.array(sorted(range(len(self)), key=lambda row: (names[row], ids[row])), np.int64)

    def positions_of(self, part: Dataset) -> Int64:
        """Return the position of each item of ``part``, (len(part),), by its id."""
        if self.lazy and part.lazy and (found := self.lazy.positions_of(part.lazy)) is not None:
            return found
        place = {id_: row for row, id_ in enumerate(part.ids)}
        positions = np.full(len(part), -1, np.int64)
        for position, id_ in enumerate(self.ids):
            if (row := place.get(id_)) is not None:
                positions[row] = position
        return positions

    def take(self, rows: npt.NDArray[np.integer]) -> Dataset:
        """Return the items at ``rows``, with the same ``Problems`` object."""
        chosen = rows.astype(np.int64)
        items: Sequence[Item] = (
            self.lazy.take(chosen)
            if self.lazy
            else tuple(self.items[row] for row in chosen.tolist())
        )
        return replace(self, items=items)

    def keep(self, condition: Callable[[Item], bool]) -> Dataset:
        """Return the items for which ``condition`` is true, with the same ``Problems`` object."""
        return replace(self, items=tuple(item for item in self.items if condition(item)))

    def pairs(self) -> Dataset:
        """Return the items that have at least one picture and at least one caption."""
        are_pairs = (self.sizes("image") > 0) & (self.sizes("text") > 0)
        return self if are_pairs.all() else self.take(np.flatnonzero(are_pairs))

    def select(self, kept: Mapping[Modality, Bool]) -> Dataset:
        """Return the items with those sources that ``kept`` selects, item after item.

        ``kept``: whether to keep each picture (p,) and each caption (c,) of the items.
        """
        if self.lazy:
            return replace(self, items=self.lazy.select(kept))
        ends = {m: self.offsets(m).tolist() for m in MODALITIES}

        def selected(row: int, item: Item) -> Item:
            image, text = (kept[m][ends[m][row] : ends[m][row + 1]] for m in MODALITIES)
            if image.all() and text.all():
                return item
            images, captions = compress(item.images, image), compress(item.captions, text)
            return replace(item, images=tuple(images), captions=tuple(captions))

        return replace(self, items=tuple(selected(*one) for one in enumerate(self.items)))

    def with_splits(self, splits: list[str | None]) -> Dataset:
        """Return the items with other splits, (n,)."""
        if self.lazy:
            return replace(self, items=self.lazy.with_splits(splits))
        items = (
            item if item.split == name else replace(item, split=name)
            for item, name in zip(self.items, splits, strict=True)
        )
        return replace(self, items=tuple(items))

    def labels(self, classes: Sequence[str]) -> tuple[Bool, Bool]:
        """Return multi-hot labels, (n, len(classes)), and which items are labelled, (n,).

        Labels that are not in ``classes`` are ignored.
        """
        column = {label: place for place, label in enumerate(classes)}
        multi_hot = np.zeros((len(self), len(classes)), dtype=np.bool_)
        labelled = np.zeros(len(self), dtype=np.bool_)
        for row, labels in enumerate(self.label_sets):
            labelled[row] = labels is not None
            for label in labels or ():
                if label in column:
                    multi_hot[row, column[label]] = True
        return multi_hot, labelled

    def with_label_share(self, share: float, seed: int = 0) -> Dataset:
        """Return a copy in which only a random share of the labelled items keeps its labels.

        The choice depends on ids and ``seed`` only. Raises ConfigError unless 0 <= share <= 1.
        """
        if not 0 <= share <= 1:
            raise ConfigError(f"label share is {share}, expected a number between 0 and 1")
        if share == 1:
            return self
        labels = self.label_sets
        labelled = np.array([row for row, found in enumerate(labels) if found is not None], int)
        order = hash_order(take_names(self.ids, labelled), f"labels {seed}")
        kept = np.zeros(len(self), np.bool_)
        kept[labelled[order[: sample_size(share, len(labelled))]]] = True
        chosen = [found if keep else None for found, keep in zip(labels, kept, strict=True)]
        if self.lazy:
            return replace(self, items=self.lazy.with_labels(chosen))
        items = (
            item if item.labels == found else replace(item, labels=found)
            for item, found in zip(self.items, chosen, strict=True)
        )
        return replace(self, items=tuple(items))

"""Items that are made when they are asked for, and their groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from xmodal.data.items import Item, Labels
from xmodal.modality import Modality

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Grouping:
    """Groups of ``n`` items: ``codes`` (n,), the number of each item's group, and their names."""

    codes: Int64
    names: Sequence[str]


class LazyItems(Sequence[Item], ABC):
    """Items that are made when they are asked for.

    :class:`xmodal.data.dataset.Dataset` reads their columns instead.
    """

    @property
    @abstractmethod
    def ids(self) -> Sequence[str]:
        """Ids, (n,)."""

    @property
    @abstractmethod
    def splits(self) -> list[str | None]:
        """Names of splits, (n,)."""

    @property
    @abstractmethod
    def label_sets(self) -> list[Labels]:
        """Labels, (n,)."""

    @property
    @abstractmethod
    def grouping(self) -> Grouping:
        """Groups of the items."""

    @abstractmethod
    def sizes(self, modality: Modality) -> Int64:
        """Return the number of pictures or captions of each item, (n,)."""

    @abstractmethod
    def group_order(self) -> Int64:
        """Return the positions of the items, ordered by the name of their group, then by id."""

    @abstractmethod
    def positions_of(self, part: LazyItems) -> Int64 | None:
        """Return the position of each item of a part of these items; None for other items."""

    @abstractmethod
    def take(self, rows: Int64) -> Self:
        """Return the items at ``rows``."""

    @abstractmethod
    def select(self, kept: Mapping[Modality, Bool]) -> Self:
        """Return the items with those sources that ``kept`` selects, item after item."""

    @abstractmethod
    def with_splits(self, splits: list[str | None]) -> Self:
        """Return the items with other splits."""

    @abstractmethod
    def with_labels(self, labels: list[Labels]) -> Self:
        """Return the items with other labels."""

    @abstractmethod
    def with_groups(self) -> Self:
        """Return the items in groups of one item, see :func:`xmodal.data.groups.with_groups`."""

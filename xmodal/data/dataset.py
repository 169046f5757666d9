"""What is learned from, indexed and evaluated: items, their labels, and splits of them.

An item has a picture, a text, or both (then it is a *pair*), perhaps labels, and any fields.
``labels is None`` says "unlabelled", which is not the same as having none of the classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.errors import ConfigError

Progress = Callable[[str, int, int], None]
"""Shows how far a long job is: what it works on, how many are done, of how many."""


class Problems:
    """Bad input, counted by kind and named; it never stops the rest."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, name: object) -> None:
        """Note one more of a kind, for example ("picture missing", "a.jpg")."""
        self._found.setdefault(kind, []).append(str(name))

    def extend(self, other: Problems) -> None:
        """Note all that another run of reading found."""
        for kind, names in other._found.items():
            self._found.setdefault(kind, []).extend(names)

    def names(self, kind: str) -> list[str]:
        """All names noted under a kind."""
        return list(self._found.get(kind, []))

    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return {kind: len(names) for kind, names in self._found.items()}

    def lines(self, shown: int = 3) -> list[str]:
        """One line a kind for a person: count, kind, the first names."""
        out = []
        for kind, names in self._found.items():
            more = f", and {len(names) - shown:,} more" if len(names) > shown else ""
            out.append(f"{len(names):,} x {kind}: {', '.join(names[:shown])}{more}")
        return out

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))


@dataclass(frozen=True)
class Item:
    """One thing to find; ``labels`` is None where nobody labelled it."""

    id: str
    image: Path | None = None
    text: str | None = None
    labels: tuple[str, ...] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None

    def document(self) -> dict[str, Any]:
        """What an index stores beside the codes: the fields, and what a person recognises it by."""
        own = {
            "text": self.text,
            "image": None if self.image is None else str(self.image),
            "labels": None if self.labels is None else list(self.labels),
        }
        return dict(self.fields) | {name: value for name, value in own.items() if value is not None}


@dataclass(frozen=True)
class Dataset:
    """Items with unique ids, and the problems met while they were read.

    ``label_column``: the column of a table that the labels were read from, or None.
    """

    items: tuple[Item, ...]
    name: str = "data"
    problems: Problems = field(default_factory=Problems)
    label_column: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @property
    def ids(self) -> list[str]:
        """The id of each item."""
        return [item.id for item in self.items]

    @property
    def classes(self) -> tuple[str, ...]:
        """Every label that occurs, sorted."""
        return tuple(sorted({label for item in self.items for label in item.labels or ()}))

    def keep(self, wanted: Callable[[Item], bool]) -> Dataset:
        """The items that ``wanted`` accepts; problems stay attached."""
        return replace(self, items=tuple(item for item in self.items if wanted(item)))

    def pairs(self) -> Dataset:
        """The items that have both a picture and a text."""
        return self.keep(lambda item: item.image is not None and item.text is not None)

    def labels(self, classes: Sequence[str]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Multi-hot labels (n, c) in the order of ``classes``, and who is labelled (n,)."""
        column = {label: place for place, label in enumerate(classes)}
        hot = np.zeros((len(self), len(classes)), dtype=np.bool_)
        known = np.zeros(len(self), dtype=np.bool_)
        for row, item in enumerate(self.items):
            known[row] = item.labels is not None
            for label in item.labels or ():
                if label in column:
                    hot[row, column[label]] = True
        return hot, known

    def with_label_share(self, share: float, seed: int = 0) -> Dataset:
        """Keep the labels of a share of the labelled items, hide the others'; for experiments."""
        if not 0 <= share <= 1:
            raise ConfigError(f"label share is {share}, expected a number between 0 and 1")
        labelled = [item.id for item in self.items if item.labels is not None]
        kept = set(first_share(labelled, share, f"labels {seed}"))
        hidden = tuple(
            item if item.id in kept else replace(item, labels=None) for item in self.items
        )
        return replace(self, items=hidden)


def by_hash(names: Iterable[str], salt: str) -> list[str]:
    """Names in an order that only they and the salt decide."""
    return sorted(names, key=lambda name: hashlib.blake2b(f"{salt}\0{name}".encode()).digest())


def first_share(names: Iterable[str], share: float, salt: str) -> list[str]:
    """A share of names (rounded, at least one unless the share is 0), whatever their order."""
    ranked = by_hash(names, salt)
    return ranked[: max(1, round(share * len(ranked))) if share and ranked else 0]

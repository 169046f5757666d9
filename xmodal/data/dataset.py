"""Items with their labels, sets of items, and problems of the input.

An item has pictures, captions, or both (then it is a *pair*), optional labels, and any fields.
``labels is None`` means unlabelled, which differs from having none of the classes.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.errors import ConfigError, one_line
from xmodal.modality import Modality


class FeatureName(str):
    """Stands for a picture or a caption of which nothing but its feature is known."""

    __slots__ = ()


ImageSource = Path | FeatureName
"""What a picture is read from."""
Progress = Callable[[str, int, int], None]
"""Callback for progress: name of the task, number of steps done, total number of steps."""
MAX_NAMES = 1000
"""Names of one kind that :class:`Problems` keeps."""
MAX_NAME = 200
"""Characters of a name in the lines of :meth:`Problems.summary_lines`."""


class Problems:
    """Unusable input, recorded by kind while the rest is processed.

    A kind is a short text, for example "picture missing"; each record of a kind has a name, for
    example that of a file or of a line. The first ``MAX_NAMES`` names of a kind are kept; the
    others are counted.
    """

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, name: object) -> None:
        """Record one problem, for example ``add("picture missing", "a.jpg")``."""
        self._counts[kind] += 1
        names = self._names.setdefault(kind, [])
        if len(names) < MAX_NAMES:
            names.append(str(name))

    def extend(self, other: Problems) -> None:
        """Record all problems of ``other``."""
        self._counts.update(other._counts)
        for kind, names in other._names.items():
            own = self._names.setdefault(kind, [])
            own.extend(names[: MAX_NAMES - len(own)])

    def names(self, kind: str) -> list[str]:
        """Return the names recorded under a kind, at most ``MAX_NAMES``."""
        return list(self._names.get(kind, []))

    def count_by_kind(self) -> dict[str, int]:
        """Return the number of records of each kind."""
        return dict(self._counts)

    def summary_lines(self, max_names: int = 3) -> list[str]:
        """Return one line for each kind: count, kind, and the first ``max_names`` names."""
        lines = []
        for kind, names in self._names.items():
            count = self._counts[kind]
            more = f", and {count - max_names:,} more" if count > max_names else ""
            shown = ", ".join(map(_shortened, names[:max_names]))
            lines.append(one_line(f"{count:,} x {kind}: {shown}{more}"))
        return lines

    def __len__(self) -> int:
        """Return the number of records of all kinds."""
        return self._counts.total()


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."


@dataclass(frozen=True)
class Item:
    """Pictures and captions of one thing; ``labels`` is None for an unlabelled item.

    ``fields`` are other values that an index stores; ``split`` is the name of a split, if the data
    has one. Items of equal ``group`` show the same thing; it is None until
    :func:`xmodal.data.groups.with_groups` sets it.
    """

    id: str
    images: tuple[ImageSource, ...] = ()
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None

    def sources(self, modality: Modality) -> tuple[ImageSource, ...] | tuple[str, ...]:
        """Return the pictures or the captions."""
        return self.images if modality == "image" else self.captions

    def document(self) -> dict[str, Any]:
        """Return the fields to store in an index, with "text", "image" and "labels".

        "image" is the absolute path of the picture. "text" and "image" are one text if there is one
        caption or picture, lists if there are several, and missing if there is none.
        """
        own = {
            "text": _one_or_list(_without_names(self.captions)),
            "image": _one_or_list(list(map(absolute_path, _without_names(self.images)))),
            "labels": None if self.labels is None else list(self.labels),
        }
        return dict(self.fields) | {name: value for name, value in own.items() if value is not None}


def absolute_path(path: str | Path) -> str:
    """Return an absolute path; symbolic links are followed only if the path has ".." in it."""
    with_parents = ".." in Path(path).parts
    return os.path.realpath(path) if with_parents else os.path.abspath(path)


def _without_names(sources: Sequence[Any]) -> list[Any]:
    return [source for source in sources if not isinstance(source, FeatureName)]


def _one_or_list(values: Sequence[str]) -> str | list[str] | None:
    return (values[0] if len(values) == 1 else list(values)) if values else None


@dataclass(frozen=True)
class Dataset:
    """Items with unique ids, and the problems recorded while they were read.

    ``label_column``: what the labels were read from, for example a column of a table, or None.
    ``source``: what the items were read from, for example "items.csv (columns image and text)".
    ``class_captions``: the captions are the labels, because the data has none.
    """

    items: tuple[Item, ...]
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
    def ids(self) -> list[str]:
        """The ids, in the order of the items."""
        return [item.id for item in self.items]

    @property
    def classes(self) -> tuple[str, ...]:
        """All different labels, sorted."""
        return tuple(sorted({label for item in self.items for label in item.labels or ()}))

    def keep(self, condition: Callable[[Item], bool]) -> Dataset:
        """Return the items for which ``condition`` is true, with the same ``Problems`` object."""
        return replace(self, items=tuple(item for item in self.items if condition(item)))

    def pairs(self) -> Dataset:
        """Return the items that have at least one picture and at least one caption."""
        return self.keep(lambda item: bool(item.images and item.captions))

    def labels(self, classes: Sequence[str]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return multi-hot labels, (n, len(classes)), and which items are labelled, (n,).

        Labels that are not in ``classes`` are ignored.
        """
        column = {label: place for place, label in enumerate(classes)}
        multi_hot = np.zeros((len(self), len(classes)), dtype=np.bool_)
        labelled = np.zeros(len(self), dtype=np.bool_)
        for row, item in enumerate(self.items):
            labelled[row] = item.labels is not None
            for label in item.labels or ():
                if label in column:
                    multi_hot[row, column[label]] = True
        return multi_hot, labelled

    def with_label_share(self, share: float, seed: int = 0) -> Dataset:
        """Return a copy in which only a random share of the labelled items keeps its labels.

        The choice depends on ids and ``seed`` only. Raises ConfigError unless 0 <= share <= 1.
        """
        if not 0 <= share <= 1:
            raise ConfigError(f"label share is {share}, expected a number between 0 and 1")
        labelled = [item.id for item in self.items if item.labels is not None]
        chosen = set(sample_by_hash(labelled, share, f"labels {seed}"))
        items = tuple(
            item if item.id in chosen else replace(item, labels=None) for item in self.items
        )
        return replace(self, items=items)


def sorted_by_hash(names: Iterable[str], salt: str) -> list[str]:
    """Return ``names`` in a pseudo-random order that depends only on the names and ``salt``."""
    return sorted(names, key=lambda name: hashlib.blake2b(f"{salt}\0{name}".encode()).digest())


def sample_by_hash(names: Iterable[str], share: float, salt: str) -> list[str]:
    """Return the first ``share`` of :func:`sorted_by_hash`.

    The number is rounded; it is at least 1 unless ``share`` is 0 or there are no names. The sample
    of a larger share contains that of a smaller one.
    """
    ranked = sorted_by_hash(names, salt)
    return ranked[: max(1, round(share * len(ranked))) if share and ranked else 0]

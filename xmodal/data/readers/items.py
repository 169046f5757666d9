"""Items from the rows of a table, and items with unique ids."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from xmodal.data.dataset import Item, Problems
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.pictures import PictureFolder
from xmodal.data.readers.seen_texts import SeenTexts
from xmodal.data.readers.values import (
    clean_captions,
    clean_field,
    clean_labels,
    clean_pictures,
    clean_scalar,
    unstorable_kind,
    valid_unicode,
)
from xmodal.data.split import PRECEDENCE, role_of

UNSTORABLE = "column with values that are not stored"
"""Kind of problem, recorded once for each column and kind of value."""
Row = tuple[str, Mapping[str, Any]]
"""Place of a row, for example "line 7", and its values by column."""


def items_from_rows(
    rows: Iterable[Row], columns: Columns, pictures: PictureFolder, problems: Problems
) -> Iterator[Item]:
    """Yield the items of a table in the order of their first rows.

    Rows without an id of their own that name the same first picture are one item, and so are rows
    with the same id, unless they name different pictures. Such an item has the captions and the
    different pictures and labels of its rows, and a list in each field in which the rows differ. If
    its rows name several splits, the most held-out one is used. ``columns`` are resolved columns.
    """
    drafts: dict[tuple[str, ...], _Draft] = {}
    for place, row in rows:
        draft = _draft(row, place, columns, pictures, problems)
        if draft is None:
            continue
        present = drafts.get(draft.key)
        if present is None:
            drafts[draft.key] = draft
        elif draft.has_id and {*present.images}.isdisjoint(draft.images) and present.images:
            drafts[(*draft.key, place)] = draft  # the same id for another picture
        else:
            present.add(draft)
    for draft in drafts.values():
        yield draft.item(problems)


@dataclass
class _Draft:
    """Values of the rows of one item. ``key``: equal for rows of one item."""

    key: tuple[str, ...]
    id: str
    has_id: bool
    images: dict[Path, None]
    captions: list[str]
    labels: dict[str, None] | None
    fields: dict[str, Any]
    splits: dict[str, None]
    differing: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, other: _Draft) -> None:
        """Add the values of another row."""
        self.images.update(other.images)
        self.captions += other.captions
        self.splits.update(other.splits)
        if other.labels is not None:
            self.labels = {**(self.labels or {}), **other.labels}
        for name, value in other.fields.items():
            known = self.fields.setdefault(name, value)
            if name in self.differing or known != value:
                values = self.differing.setdefault(name, _as_list(known))
                values.extend(one for one in _as_list(value) if one not in values)

    def item(self, problems: Problems) -> Item:
        """Return the item; several splits are recorded."""
        splits = sorted(self.splits, key=_split_order)
        if len(splits) > 1:
            problems.add(
                "rows of one picture name several splits, the most held-out one is used",
                f"{self.id} ({', '.join(splits)})",
            )
        return Item(
            self.id,
            tuple(self.images),
            tuple(self.captions),
            None if self.labels is None else tuple(self.labels),
            self.fields | self.differing,
            splits[0] if splits else None,
        )


def _draft(
    row: Mapping[str, Any],
    place: str,
    columns: Columns,
    pictures: PictureFolder,
    problems: Problems,
) -> _Draft | None:
    """Return the values of a row, or None if it has neither a picture nor a caption.

    The id is that of the id column, else the first picture's name, else ``place``. What is missing
    is recorded.
    """
    names = clean_pictures(row.get(columns.image)) if columns.image else ()
    captions, understood = clean_captions(row.get(columns.text)) if columns.text else ((), True)
    own_id = clean_scalar(row.get(columns.id)) if columns.id else None
    images = [path for name in names if (path := pictures.find(name, problems)) is not None]
    id_ = own_id or (names[0] if names else place)
    if columns.image and not names and pictures.needed:
        problems.add("row without a picture", id_)
    if not understood:
        problems.add("caption is neither text, number nor an object with raw or text", id_)
    elif columns.text and not captions:
        problems.add("caption empty", id_)
    if not images and not captions and (pictures.needed or own_id is None):
        problems.add("row left out, it has neither picture nor text", id_)
        return None
    key: tuple[str, ...]
    if own_id:
        key = ("id", own_id)
    else:
        key = (
            ("picture", os.path.normpath(images[0] if images else names[0])) if names else (place,)
        )
    labels = clean_labels(row.get(columns.label)) if columns.label else None
    split = clean_scalar(row.get(columns.split)) if columns.split else None
    return _Draft(
        key,
        id_,
        own_id is not None,
        dict.fromkeys(images),
        list(captions),
        None if labels is None else dict.fromkeys(labels),
        _fields(row, columns, problems),
        {} if split is None else {split: None},
    )


def _fields(row: Mapping[str, Any], columns: Columns, problems: Problems) -> dict[str, Any]:
    """Return the values of the columns without a role that an index can store.

    Columns with other values are recorded once.
    """
    used = {columns.image, columns.text, columns.label, columns.id, columns.split}
    fields = {}
    for name, raw in row.items():
        if not name or name in used:
            continue
        value, kind = clean_field(raw), unstorable_kind(raw)
        if value is not None:
            fields[valid_unicode(name)] = value
        if kind is not None and (column := f"{name} ({kind})") not in problems.names(UNSTORABLE):
            problems.add(UNSTORABLE, column)
    return fields


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _split_order(name: str) -> tuple[int, str]:
    """Sort names of splits by PRECEDENCE of their parts; unknown names come first."""
    role = role_of(name)
    return (-1 if role is None else PRECEDENCE.index(role), name)


def unique_items(
    items: Iterable[Item], problems: Problems, earlier: SeenTexts, source: Path | None
) -> Iterator[Item]:
    """Yield the first item of each id; leave out ids and file names that are not valid Unicode.

    ``earlier``: ids of earlier sources, to which those of this source are added. Where an id is
    among them, the end of the path ``source`` is put before it.
    """
    seen = earlier if source is None else SeenTexts()
    for item in items:
        names = "".join([item.id, *map(str, item.images)])
        if valid_unicode(names) != names:
            problems.add("id or file name is not valid Unicode, left out", ascii(item.id))
        elif not seen.add(item.id):
            problems.add("id repeated, the first one stays", item.id)
        elif source is not None and not earlier.add(item.id):
            yield _under_another_id(item, source, earlier)
        else:
            yield item


def _under_another_id(item: Item, source: Path, earlier: SeenTexts) -> Item:
    """Return the item under the shortest new id that the end of the source's path begins."""
    parts = [part for part in source.absolute().parts if part != source.anchor]
    ends = ("/".join(parts[-number:]) for number in range(1, len(parts) + 1))
    numbers = (f"{'/'.join(parts)} {number}" for number in count(2))
    return next(
        replace(item, id=id_)
        for end in chain(ends, numbers)
        if earlier.add(id_ := f"{end}/{item.id}")
    )

"""Items from the rows of a table, and items with unique ids."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from xmodal.data.items import ImageSource, Item
from xmodal.data.packed.names import PackedName
from xmodal.data.problems import Problems
from xmodal.data.readers.columns import Columns, getter
from xmodal.data.readers.pictures import PictureFolder
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.repeats import ALONE, LAST, Repeats
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
IdKind = Literal["id", "picture", "row"]
"""What the id of an item is: that of the id column, the name of its picture, the place of a row."""
Row = tuple[str, Mapping[str, Any]]
"""Place of a row, for example "line 7", and its values by column."""


def items_from_rows(
    rows: Iterable[Row],
    columns: Columns,
    pictures: PictureFolder,
    reading: Reading,
    repeats: Repeats | None = None,
) -> Iterator[Item]:
    """Yield the items of a table. ``columns`` are resolved columns.

    Rows without an id of their own that name the same first picture are one item, and so are rows
    with the same id, unless they name different pictures. Such an item has the captions and the
    different pictures and labels of its rows, and a list in each field in which the rows differ. If
    its rows name several splits, the most held-out one is used.

    ``repeats``: which rows may be of one item, default: none. An item is held until its last row,
    and with ``reading.in_order`` until the items before it are complete.
    """
    repeats = repeats or Repeats()
    reader = _RowReader(columns, pictures, reading)
    held: dict[int, dict[tuple[str, ...], _Draft]] = {}
    waiting: deque[_Draft] = deque()
    for number, ((place, row), state) in enumerate(zip(rows, repeats.states(), strict=False)):
        found = reader.item(place, row)
        if state == ALONE and not waiting:  # the usual case
            if found is not None:
                yield found[1]
            continue
        draft = None if found is None else _Draft.of(*found, place)
        if state == ALONE:
            complete = [] if draft is None else [draft]
        else:
            hash_ = repeats.hash(number)
            drafts = held.setdefault(hash_, {})
            if draft is not None and _add(drafts, draft, place) and reading.in_order:
                draft.complete = False
                waiting.append(draft)
            complete = list(held.pop(hash_).values()) if state == LAST else []
        if waiting:
            complete = _next_in_order(waiting, complete, state)
        for one in complete:
            yield one.item(reading.problems)
    # The file became shorter after its repeats were found.
    rest = waiting or chain.from_iterable(drafts.values() for drafts in held.values())
    for one in rest:
        yield one.item(reading.problems)


def _add(drafts: dict[tuple[str, ...], _Draft], draft: _Draft, place: str) -> bool:
    """Add a row to the drafts of equal hashes; return whether it is a draft of its own."""
    present = drafts.get(draft.key)
    if present is None:
        drafts[draft.key] = draft
    elif draft.has_id and _are_different(present.images, draft.images):
        drafts[(*draft.key, place)] = draft  # the same id for another picture
    else:
        present.add(draft)
        return False
    return True


def _next_in_order(waiting: deque[_Draft], complete: list[_Draft], state: int) -> list[_Draft]:
    """Return the drafts at the beginning of ``waiting`` that are complete."""
    if state == ALONE:
        waiting.extend(complete)
    for draft in complete:
        draft.complete = True
    ready = []
    while waiting and waiting[0].complete:
        ready.append(waiting.popleft())
    return ready


@dataclass(slots=True)
class _Draft:
    """Values of the rows of one item. ``key``: equal for rows of one item."""

    key: tuple[str, ...]
    id: str
    has_id: bool
    images: dict[ImageSource, None]
    captions: list[str]
    labels: dict[str, None] | None
    fields: dict[str, Any]
    splits: dict[str, None]
    differing: dict[str, dict[Any, Any]] | None = None
    complete: bool = True

    @classmethod
    def of(cls, kind: IdKind, item: Item, place: str) -> _Draft:
        """Return the draft of the item of one row."""
        key: tuple[str, ...] = (kind, item.id if kind == "id" else place)
        if kind == "picture":
            key = (kind, os.path.normpath(str(item.images[0]) if item.images else item.id))
        return cls(
            key,
            item.id,
            kind == "id",
            dict.fromkeys(item.images),
            [*item.captions],
            None if item.labels is None else dict.fromkeys(item.labels),
            dict(item.fields),
            {} if item.split is None else {item.split: None},
        )

    def add(self, other: _Draft) -> None:
        """Add the values of another row."""
        self.images.update(other.images)
        self.captions += other.captions
        self.splits.update(other.splits)
        if other.labels is not None:
            self.labels = (self.labels or {}) | other.labels
        self.differing = self.differing or {}
        for name, value in other.fields.items():
            known = self.fields.setdefault(name, value)
            if name in self.differing or known != value:
                values = self.differing.setdefault(name, _different(known))
                for key, one in _different(value).items():
                    values.setdefault(key, one)

    def item(self, problems: Problems) -> Item:
        """Return the item; several splits are recorded."""
        splits = sorted(self.splits, key=_split_order)
        if len(splits) > 1:
            problems.add(
                "rows of one picture name several splits, the most held-out one is used",
                f"{self.id} ({', '.join(splits)})",
            )
        differing = self.differing or {}
        return Item(
            self.id,
            tuple(self.images),
            tuple(self.captions),
            None if self.labels is None else tuple(self.labels),
            self.fields | {name: list(values.values()) for name, values in differing.items()},
            splits[0] if splits else None,
        )


class _RowReader:
    """Reads items from the rows of one table."""

    def __init__(self, columns: Columns, pictures: PictureFolder, reading: Reading) -> None:
        self._columns, self._pictures, self._reading = columns, pictures, reading
        roles = (columns.image, columns.text, columns.label, columns.id, columns.split)
        self._used = {"", *(name for name in roles if name is not None)}
        self._unstorable: set[tuple[str, str]] = set()
        self._value_at = getter(columns)

    def item(self, place: str, row: Mapping[str, Any]) -> tuple[IdKind, Item] | None:
        """Return what the id of a row is, and its item; None without a picture and a caption.

        The id is that of the id column, else the first picture's name, else the place. What is
        missing is recorded.
        """
        columns, problems, value_at = self._columns, self._reading.problems, self._value_at
        names: tuple[str, ...] = ()
        images: tuple[Path, ...] = ()
        if columns.image is not None:
            names = clean_pictures(value_at(row, columns.image))
            found = (self._pictures.find(name, problems) for name in names)
            images = tuple(dict.fromkeys(path for path in found if path is not None))
        captions, understood = (
            ((), True) if columns.text is None else clean_captions(value_at(row, columns.text))
        )
        kind: IdKind = "row"
        own_id = None if columns.id is None else clean_scalar(value_at(row, columns.id))
        if own_id is not None:
            kind, id_ = "id", own_id
        elif names and not isinstance(names[0], PackedName):
            kind, id_ = "picture", names[0]
        else:
            id_ = self._reading.row_prefix + place
        if not understood or not captions or not names:
            self._record_missing(id_, names, captions, understood)
            if not images and not captions and (self._pictures.needed or own_id is None):
                problems.add("row left out, it has neither picture nor text", id_)
                return None
        labels = None if columns.label is None else clean_labels(value_at(row, columns.label))
        split = None if columns.split is None else clean_scalar(value_at(row, columns.split))
        return kind, Item(id_, images, captions, labels, self._fields(row), split)

    def _record_missing(
        self, id_: str, names: Sequence[str], captions: Sequence[str], understood: bool
    ) -> None:
        problems = self._reading.problems
        if self._columns.image is not None and not names and self._pictures.needed:
            problems.add("row without a picture", id_)
        if not understood:
            problems.add("caption is neither text, number nor an object with raw or text", id_)
        elif self._columns.text is not None and not captions:
            problems.add("caption empty", id_)

    def _fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the columns without a role that an index can store.

        Columns with other values are recorded once.
        """
        fields, used = {}, self._used
        for name, raw in row.items():
            if name in used or raw is None:
                continue
            if type(raw) is str and raw.isascii():  # the usual cases
                value: Any = raw.strip() or None
            elif type(raw) is int or (type(raw) is float and isfinite(raw)):
                value = raw
            else:
                value = self._unusual_field(name, raw)
            if value is not None:
                fields[name if name.isascii() else valid_unicode(name)] = value
        return fields

    def _unusual_field(self, name: str, raw: Any) -> Any:
        kind = unstorable_kind(raw)
        if kind is not None and (name, kind) not in self._unstorable:
            self._unstorable.add((name, kind))
            self._reading.problems.add(UNSTORABLE, f"{name} ({kind})")
        return clean_field(raw)


def _are_different(some: dict[ImageSource, None], others: dict[ImageSource, None]) -> bool:
    """Whether two rows name pictures, and not the same ones."""
    return bool(some and others) and some.keys().isdisjoint(others)


def _different(value: Any) -> dict[Any, Any]:
    """Return the different values of a field, or of a list of them."""
    values = value if isinstance(value, list) else [value]
    return {repr(one) if isinstance(one, list) else one: one for one in values}


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
        if not (_is_valid(item.id) and all(map(_is_valid, map(str, item.images)))):
            problems.add("id or file name is not valid Unicode, left out", ascii(item.id))
        elif not seen.add(item.id):
            problems.add("id repeated, the first one stays", item.id)
        elif source is not None and not earlier.add(item.id):
            yield _under_another_id(item, source, earlier)
        else:
            yield item


def _is_valid(name: str) -> bool:
    return name.isascii() or valid_unicode(name) == name


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

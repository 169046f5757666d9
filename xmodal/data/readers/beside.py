"""Captions and fields in files beside pictures: a.txt, a.caption and a.json of a.jpg.

They have the picture's name with another ending ("a.txt") or with one more ("a.jpg.txt"), in any
case. A JSON file is an object of a caption and fields, as img2dataset, gallery-dl and trainers of
diffusion models write it.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmodal.data.items import Item
from xmodal.data.readers.columns import COLUMN_NAMES, value_at
from xmodal.data.readers.items import UNSTORABLE
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.text_lines import read_text
from xmodal.data.readers.values import (
    clean_captions,
    clean_field,
    clean_labels,
    clean_scalar,
    unstorable_kind,
    valid_unicode,
)
from xmodal.data.readers.walk import Listing
from xmodal.errors import DataError

SUFFIXES = (".txt", ".caption", ".json")
"""Endings of caption files, in order of preference (lower case)."""
MAX_BYTES = 1_000_000
"""Maximum size of a caption file."""
RESERVED = ("id", "text", "image", "labels", "split")
"""Names of fields that an item has itself."""


def is_caption_name(name: str) -> bool:
    """Whether a file has the ending of a caption file."""
    return name.casefold().endswith(SUFFIXES)


class CaptionFiles:
    """The caption files of one folder, found by the name of a picture in any case."""

    def __init__(self, listing: Listing) -> None:
        self.path = listing.path
        self._names = sorted(filter(is_caption_name, listing.files), key=str.casefold)
        found = {os.path.splitext(name)[1].casefold() for name in self._names}
        self._suffixes = [suffix for suffix in SUFFIXES if suffix in found]

    def __bool__(self) -> bool:
        return bool(self._names)

    def of(self, picture: str) -> Iterator[list[str]]:
        """Yield the names of the caption files of a picture, by order of preference.

        Several names of one list differ by case alone, and none has the picture's own spelling.
        """
        for base in (os.path.splitext(picture)[0], picture):
            for suffix in self._suffixes:
                names = _equal_without_case(self._names, base + suffix)
                if base + suffix in names:
                    yield [base + suffix]
                elif names:
                    yield [name for name in names if name.startswith(base)] or names


class Pictures:
    """The pictures of some folders, found by the name of a caption file in any case."""

    def __init__(self, names: list[str]) -> None:
        self._names = sorted(names, key=str.casefold)

    def has_one_of(self, caption_file: str) -> bool:
        """Whether a caption file is that of a picture."""
        stem = os.path.splitext(caption_file)[0]
        if _equal_without_case(self._names, stem):
            return True
        stem = stem.casefold()
        for place in range(_first(self._names, f"{stem}."), len(self._names)):
            name = self._names[place].casefold()
            if not name.startswith(f"{stem}."):
                return False
            if os.path.splitext(name)[0] == stem:
                return True
        return False


def _first(names: list[str], name: str) -> int:
    """Return the place of the first name that is not less than ``name`` without case."""
    return bisect_left(names, name.casefold(), key=str.casefold)


def _equal_without_case(names: list[str], name: str) -> list[str]:
    """Return the names that are equal to ``name`` without case; ``names`` are sorted so."""
    found = []
    for place in range(_first(names, name), len(names)):
        if names[place].casefold() != name.casefold():
            break
        found.append(names[place])
    return found


@dataclass
class Beside:
    """Reads caption files; what is not usable is recorded. ``root``: folder of names in messages.

    ``captions`` and ``fields``: whether a file had some.
    """

    root: Path
    reading: Reading
    captions: bool = False
    fields: bool = False
    _unstorable: set[str] = field(default_factory=set)

    def item(self, id_: str, picture: Path, files: list[CaptionFiles]) -> Item:
        """Return the item of a picture, with the caption of the first file that has one."""
        captions: tuple[str, ...] = ()
        row: dict[str, Any] = {}
        for path in self._paths(picture, files):
            if path.suffix.lower() == ".json":
                row = row or self._row(path)
                captions = captions or self._captions_of(row, picture)
            elif not captions:
                captions = self._captions(path)
        self.captions = self.captions or bool(captions)
        self.fields = self.fields or bool(row)
        columns = self.reading.columns
        labels = clean_labels(value_at(row, columns.label)) if columns.label and row else None
        split = clean_scalar(value_at(row, columns.split or "split")) if row else None
        return Item(id_, (picture,), captions, labels, self._fields(row), split)

    def _paths(self, picture: Path, files: list[CaptionFiles]) -> Iterator[Path]:
        for folder in files:
            for names in folder.of(picture.name):
                if len(names) > 1:
                    self._add("several caption files differ by case, none is used", folder, names)
                else:
                    yield folder.path / names[0]

    def _add(self, kind: str, folder: CaptionFiles, names: list[str]) -> None:
        self.reading.problems.add(kind, self._name(folder.path / names[0]))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _captions(self, path: Path) -> tuple[str, ...]:
        text = self._text(path)
        if text is None:
            return ()
        captions, _ = clean_captions(text)
        if not captions:
            self.reading.problems.add("caption empty", self._name(path))
        return captions

    def _text(self, path: Path) -> str | None:
        problems = self.reading.problems
        try:
            if path.stat().st_size > MAX_BYTES:
                problems.add("caption file of more than 1 MB, not read", self._name(path))
                return None
            return read_text(path, self.reading)
        except DataError:
            encoding = (self.reading.encoding or "utf-8").upper()
            problems.add(f"caption not in {encoding}", self._name(path))
        except OSError as error:
            problems.add(f"caption file not readable ({error.strerror})", self._name(path))
        return None

    def _row(self, path: Path) -> dict[str, Any]:
        text = self._text(path)
        if text is None:
            return {}
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, str | list):
            content = {"caption": content}
        if not isinstance(content, dict):
            self.reading.problems.add("caption file is not a JSON object", self._name(path))
            return {}
        return content

    def _captions_of(self, row: dict[str, Any], picture: Path) -> tuple[str, ...]:
        """Return the captions of the first usual name; some programs write the file's name."""
        named = self.reading.columns.text
        values = [value_at(row, named)] if named else _usual_values(row)
        for value in values:
            found, _ = clean_captions(value)
            captions = tuple(text for text in found if text not in (picture.name, picture.stem))
            if captions:
                return captions
        return ()

    def _fields(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the values that an index can store; names of others are recorded once."""
        columns = self.reading.columns
        used = {*RESERVED, columns.text or "", columns.label or "", columns.split or ""}
        fields = {}
        for name, raw in row.items():
            if name in used:
                continue
            value, kind = clean_field(raw), unstorable_kind(raw)
            if value is not None and name:
                fields[valid_unicode(name)] = value
            if kind is not None and name not in self._unstorable:
                self._unstorable.add(name)
                self.reading.problems.add(UNSTORABLE, f"{name} ({kind})")
        return fields


def _usual_values(row: dict[str, Any]) -> list[Any]:
    """Return the values of the usual names of captions, in any case."""
    by_name = {name.strip().casefold(): value for name, value in row.items()}
    return [by_name[name] for name in COLUMN_NAMES["text"] if name in by_name]

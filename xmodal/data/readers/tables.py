"""Data as people have it: a folder with metadata, a folder with captions, or a table.

Three layouts, one function:

    photos/metadata.jsonl|csv|parquet   the "imagefolder" convention: a file_name column (also one
                                        level down: photos/train/metadata.jsonl names the split)
    photos/**/a.jpg + a.txt             a caption beside each picture
    items.csv|tsv|jsonl|json|parquet    a table with image and text columns; labels on request

Whatever cannot be used is counted and named in ``Dataset.problems`` and costs nothing else.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xmodal.data.dataset import Dataset, Item, Problems
from xmodal.data.images import SUFFIXES
from xmodal.errors import ConfigError, DataError

TABLES = (".jsonl", ".csv", ".parquet", ".tsv", ".json", ".ndjson")
GUESSES = {
    "image": ("file_name", "image", "image_path", "filename", "filepath", "path", "img"),
    "text": ("text", "caption", "captions", "title", "description", "name"),
    "id": ("id", "item_id"),
    "split": ("split",),
}
"""Column names that are understood without being told, best first; none for labels."""
LABEL_NAMES = ("labels", "label", "class", "category")
"""Columns that probably hold labels: :func:`label_candidates` counts their values."""

MAX_TEXT = 100_000
"""Characters of a text that are kept; backbones read far fewer."""


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns; None: one of GUESSES, if it is there.

    ``label`` is not guessed: None means that the items have no labels.
    """

    image: str | None = None
    text: str | None = None
    label: str | None = None
    id: str | None = None
    split: str | None = None


def read(
    source: str | Path, columns: Columns | None = None, *, label_column: str | None = None
) -> Dataset:
    """Read a folder or a table; see the module's docstring.

    Relative picture paths count from the table's folder. Labels are read from ``label_column``
    (``columns.label``, if None) and from no other column; a column that is not used is stored as a
    field. Raises DataError if there is nothing that could be used, ConfigError for a column that is
    not there.
    """
    path = Path(source)
    columns = columns or Columns()
    columns = replace(columns, label=label_column or columns.label)
    problems = Problems()
    if path.is_dir():
        items = _read_folder(path, columns, problems)
    elif path.is_file():
        if path.suffix.lower() not in TABLES:
            raise DataError(
                f"{path} has the ending {path.suffix!r}, expected a folder or a table "
                f"({', '.join(TABLES)})"
            )
        items = _read_table(path, columns, problems)
    else:
        raise DataError(f"there is nothing at {path}, expected a folder or a table of pictures")
    kept = tuple(_unique(items, problems))
    if not kept:
        found = "; ".join(problems.lines()) or "it is empty"
        raise DataError(f"{path} has no item that could be used: {found}")
    name = path.name or str(path)
    return Dataset(kept, name=name, problems=problems, label_column=columns.label)


def label_candidates(data: Dataset) -> dict[str, int]:
    """Fields that are named like labels (LABEL_NAMES, in any case), and their numbers of values."""
    values: dict[str, set[str]] = {}
    for item in data:
        for name, value in item.fields.items():
            if name.lower() in LABEL_NAMES:
                values.setdefault(name, set()).update(_labels(value) or ())
    return {name: len(found) for name, found in values.items() if found}


def _read_folder(folder: Path, columns: Columns, problems: Problems) -> Iterator[Item]:
    table = _metadata(folder)
    if table:
        yield from _read_table(table, columns, problems)
        return
    parts = {child.name: _metadata(child) for child in sorted(folder.iterdir()) if child.is_dir()}
    found = {name: table for name, table in parts.items() if table}
    if found:
        for name, table in found.items():
            for item in _read_table(table, columns, problems):
                yield replace(item, id=f"{name}/{item.id}", split=item.split or name)
        return
    if columns != Columns():
        raise ConfigError(f"column names were given, but {folder} has no metadata table")
    yield from _read_captions(folder, problems)


def _metadata(folder: Path) -> Path | None:
    tables = [folder / f"metadata{ending}" for ending in (".jsonl", ".csv", ".parquet")]
    there = [table for table in tables if table.is_file()]
    if len(there) > 1:
        names = " and ".join(table.name for table in there)
        raise DataError(f"{folder} has {names}, expected one: name the table instead of the folder")
    return there[0] if there else None


def _read_captions(folder: Path, problems: Problems) -> Iterator[Item]:
    """Every picture below ``folder``; its text is in the .txt file of the same name, if any."""
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(base, name)
            if path.suffix.lower() not in SUFFIXES or name.startswith("."):
                continue
            id_ = path.relative_to(folder).as_posix()
            text = None
            caption = path.with_suffix(".txt")
            if caption.is_file():
                try:
                    text = _text(caption.read_text(encoding="utf-8-sig"))
                except UnicodeDecodeError:
                    problems.add("caption not in UTF-8", caption.relative_to(folder))
                else:
                    if text is None:
                        problems.add("caption empty", caption.relative_to(folder))
            yield Item(id_, image=path, text=text)


def _read_table(path: Path, columns: Columns, problems: Problems) -> Iterator[Item]:
    rows = list(_rows(path, problems))
    if not rows:
        return
    names = _resolve(columns, list(dict.fromkeys(name for _, row in rows for name in row)), path)
    for place, row in rows:
        yield from _item(row, place, names, path.parent, problems)


def _item(
    row: Mapping[str, Any], place: str, names: Columns, root: Path, problems: Problems
) -> Iterator[Item]:
    """The item of a row, or none: then the reason is noted."""
    file = _scalar(row.get(names.image)) if names.image else None
    text = _text(row.get(names.text)) if names.text else None
    id_ = _scalar(row.get(names.id)) if names.id else None
    image = None
    if file:
        if "://" in file:
            problems.add("picture is a URL (download it first)", file)
        elif not os.path.isfile(root / file):  # unlike Path.is_file, false for impossible names
            problems.add("picture missing", file)
        else:
            image = root / file
    elif names.image:
        problems.add("row without a picture", id_ or place)
    if names.text and text is None:
        problems.add("caption empty", id_ or file or place)
    if image is None and text is None:
        problems.add("row left out, it has neither picture nor text", id_ or file or place)
        return
    used = {names.image, names.text, names.label, names.id, names.split}
    fields = {
        _valid(name): value
        for name, raw in row.items()
        if name not in used and (value := _field(raw)) is not None
    }
    yield Item(
        id_ or file or place,
        image=image,
        text=text,
        labels=_labels(row.get(names.label)) if names.label else None,
        fields=fields,
        split=_scalar(row.get(names.split)) if names.split else None,
    )


def _rows(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a table with their place in it, for example ("line 7", {...})."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        yield from _parquet_rows(path)
    elif ending == ".json":
        try:
            rows = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is not JSON: {error}") from None
        if not isinstance(rows, list):
            raise DataError(
                f"{path} holds a JSON {type(rows).__name__}, expected a list of objects"
            )
        for number, row in enumerate(rows, 1):
            if isinstance(row, dict):
                yield f"row {number}", row
            else:
                problems.add("bad line", f"row {number} is not an object")
    elif ending in (".jsonl", ".ndjson"):
        for number, line in _lines(path, problems):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                problems.add("bad line", f"line {number} is not JSON ({error})")
                continue
            if isinstance(row, dict):
                yield f"line {number}", row
            else:
                problems.add("bad line", f"line {number} is not an object")
    else:
        yield from _csv_rows(path, problems)


def _lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                problems.add("bad line", f"line {number} is not in UTF-8")


def _csv_rows(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0

    def counted() -> Iterator[str]:
        nonlocal number
        for at, line in _lines(path, problems):
            number = at
            yield line

    lines = counted()
    try:
        first = next(lines)
    except StopIteration:
        raise DataError(f"{path} is empty, expected a header line with column names") from None
    tab = path.suffix.lower() == ".tsv"
    delimiter = "\t" if tab else ";" if first.count(";") > first.count(",") else ","
    header = next(csv.reader([first], delimiter=delimiter))
    if len(set(header)) != len(header):
        raise DataError(f"{path} names a column twice: {', '.join(header)}")
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.add("bad line", f"line {number} ({error})")
            continue
        place = f"line {number}"
        if not values:
            continue
        if len(values) != len(header):
            problems.add("bad line", f"{place} has {len(values)} values for {len(header)} columns")
            continue
        yield place, dict(zip(header, values, strict=True))


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(4096):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None


def _resolve(wanted: Columns, there: Sequence[str], path: Path) -> Columns:
    """The column of each role: as told, as guessed, or None."""
    chosen: dict[str, str | None] = {}
    for role in (one.name for one in dataclasses.fields(Columns)):
        told, guesses = getattr(wanted, role), GUESSES.get(role, ())
        if told is not None and told not in there:
            raise ConfigError(f"{path} has no column {told!r}; its columns are {', '.join(there)}")
        chosen[role] = told or next((guess for guess in guesses if guess in there), None)
    if chosen["image"] is None and chosen["text"] is None:
        raise DataError(
            f"{path} has the columns {', '.join(there)}; expected one with pictures "
            f"({', '.join(GUESSES['image'][:3])}, ...) or texts ({', '.join(GUESSES['text'][:3])}, "
            "...): name them with --image-column and --text-column"
        )
    return Columns(**chosen)


def _unique(items: Iterable[Item], problems: Problems) -> Iterator[Item]:
    seen: set[str] = set()
    for item in items:
        if _valid(f"{item.id}{item.image}") != f"{item.id}{item.image}":
            problems.add("id or file name is not valid Unicode, left out", ascii(item.id))
            continue
        if item.id in seen:
            problems.add("id repeated, the first one stays", item.id)
            continue
        seen.add(item.id)
        yield item


def _text(value: Any) -> str | None:
    """A caption on one line; several captions of one picture are joined."""
    if isinstance(value, list | tuple):
        value = ". ".join(str(one) for one in value if one)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return _valid(" ".join(str(value)[:MAX_TEXT].split())) or None


def _scalar(value: Any) -> str | None:
    """An id, path or split as text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def _labels(value: Any) -> tuple[str, ...] | None:
    """Labels from a list, a JSON list as text, or text with | between; None: unlabelled."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                value = text
        if isinstance(value, str):
            value = text.split("|")
    elif isinstance(value, int | float):
        value = [value]
    if not isinstance(value, list | tuple):
        return None
    names = dict.fromkeys(_valid(str(x).strip()) for x in value if x is not None and x == x)
    return tuple(name for name in names if name) or None


def _field(value: Any) -> Any:
    """A value that an index can store, or None."""
    if isinstance(value, list | tuple):
        return [one for one in map(_field, value) if one is not None] or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return _valid(value.strip()) or None
    if value is None or isinstance(value, int | float):
        return value
    return str(value) if hasattr(value, "isoformat") else None


def _valid(text: str) -> str:
    """Text that can be written: JSON may hold halves of characters, file names any bytes."""
    return text.encode(errors="replace").decode()

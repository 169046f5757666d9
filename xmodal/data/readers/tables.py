"""Tables of items: the format is chosen by the file's ending, and for some by its content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from xmodal.data.dataset import Item
from xmodal.data.packed.names import TAR_ENDINGS, PackedName, container_ending
from xmodal.data.readers import (
    arrow,
    delimited,
    flickr_token,
    json_array,
    json_lines,
    parquet,
    webdataset,
)
from xmodal.data.readers.columns import Columns, key_columns, resolve_columns
from xmodal.data.readers.items import Row, items_from_rows
from xmodal.data.readers.pictures import PictureFolder
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.repeats import Repeats, RowKeys

ReadRows = Callable[[Path, Reading], Iterator[tuple[str, dict[str, Any]]]]
START_ROWS = 100
"""First rows of a table, among which the column of packed pictures is looked for."""
Rows = Callable[[Reading], Iterator[Row]]
"""Returns the rows of a table from the first one on, each time that it is called."""

FORMATS: dict[str, ReadRows] = {
    ".jsonl": json_lines.read_rows,
    ".csv": delimited.read_rows,
    ".parquet": parquet.read_rows,
    ".tsv": delimited.read_rows,
    ".json": json_array.read_rows,
    ".ndjson": json_lines.read_rows,
    ".txt": delimited.read_rows,
    ".token": flickr_token.read_rows,
    ".arrow": arrow.read_rows,
    ".feather": arrow.read_rows,
    **dict.fromkeys(TAR_ENDINGS, webdataset.read_rows),
}
"""Reader of each ending (lower case). Readers yield (place, row), for example ("line 7", {...});
they record unreadable rows in the problems, and raise DataError if the file is unreadable."""


def format_ending(path: Path) -> str:
    """Return the ending of a file in lower case, ".tar.gz" included."""
    return container_ending(path) or path.suffix.lower()


def read_table(path: Path, reading: Reading) -> Iterator[Item]:
    """Yield the items of a table; a column that only some rows have is a column of the table."""
    read = FORMATS[format_ending(path)]
    if read is delimited.read_rows and flickr_token.is_token_file(path, reading.without_records()):
        read = flickr_token.read_rows
    yield from read_items(partial(read, path), path, reading)


def read_items(rows: Rows, path: Path, reading: Reading) -> Iterator[Item]:
    """Yield the items of the rows of the table at ``path``.

    The rows are read twice: first for the names of the columns and for the rows that are of one
    item, with problems that are not recorded, then for their values.
    """
    start = list(islice(rows(reading.without_records()), START_ROWS))
    named = _with_packed_pictures(reading.columns, start)
    reading_keys = replace(reading.without_records(), columns=named)
    available, repeats = _survey(rows, start, (reading.pictures or path.parent), reading_keys)
    if not available:
        for _ in rows(reading):  # unreadable rows are recorded
            pass
        return
    columns = resolve_columns(named, available, path)
    names = [str(name).strip() for name in (columns.image, columns.text) if name is not None]
    reading.sources.append(f"{path.name} (column{'s' * (len(names) > 1)} {' and '.join(names)})")
    pictures = PictureFolder(path, reading)
    yield from items_from_rows(rows(reading), columns, pictures, reading, repeats)


def _with_packed_pictures(columns: Columns, rows: list[Row]) -> Columns:
    """Return the columns, with the first one that holds pictures if none is named."""
    if columns.image is not None:
        return columns
    packed = (
        name
        for _, row in rows
        for name, value in row.items()
        if isinstance(value[0] if isinstance(value, list) and value else value, PackedName)
    )
    return replace(columns, image=next(packed, None))


def _survey(
    rows: Rows, start: list[Row], folder: Path, reading: Reading
) -> tuple[list[str], Repeats]:
    """Return the columns of all rows in order of appearance, and which rows are of one item.

    ``start``: the first rows. ``folder``: that of relative picture paths.
    """
    available = {name: None for _, row in start for name in row}
    while True:
        columns = key_columns(reading.columns, available)
        keys = RowKeys(columns, folder.absolute())
        only = frozenset(filter(None, (columns.id, columns.image)))
        for _, row in rows(replace(reading, only=only)):
            if not available.keys() >= row.keys():
                available |= dict.fromkeys(row)
                if key_columns(reading.columns, available) != columns:
                    break  # the rows before this one have other keys
            keys.add(row)
        else:
            return list(available), keys.repeats()

"""Tables of items: the format is chosen by the file's ending, and for some by its content."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from xmodal.data.items import Item
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
from xmodal.data.readers.columns import Columns, key_columns, likely_columns, resolve_columns
from xmodal.data.readers.items import Row, items_from_rows
from xmodal.data.readers.pictures import PictureFolder
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.repeats import RowKeys
from xmodal.data.readers.text_lines import COMPRESSED
from xmodal.errors import ConfigError

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
DELIMITED = tuple(ending for ending, read in FORMATS.items() if read is delimited.read_rows)
SELECTING = (parquet.read_rows, arrow.read_rows)
"""Readers that read the columns of ``Reading.only`` alone."""
MEMORY = "table"
"""Name of a table in memory."""
TEXT_FORMATS = frozenset(FORMATS) - {".parquet", ".arrow", ".feather", *TAR_ENDINGS}
"""Formats of text, which may be compressed: "t.csv.gz"."""


def format_ending(path: Path) -> str:
    """Return the ending of a file in lower case: ".tar.gz" as it is, ".csv" of "t.csv.gz"."""
    ending = container_ending(path) or path.suffix.lower()
    inner = path.with_suffix("").suffix.lower()
    return inner if ending in COMPRESSED and inner in TEXT_FORMATS else ending


def read_table(path: Path, reading: Reading) -> Iterator[Item]:
    """Yield the items of a table; a column that only some rows have is a column of the table."""
    read = FORMATS[format_ending(path)]
    if read is not delimited.read_rows:
        if reading.header is not None or reading.separator is not None:
            raise ConfigError(
                f"--columns and --separator are for delimited text ({', '.join(DELIMITED)}): leave "
                f"them out for {path}"
            )
    elif reading.header is None and flickr_token.is_token_file(path, reading.without_records()):
        read = flickr_token.read_rows
    yield from read_items(partial(read, path), path, reading, selects_columns=read in SELECTING)


def read_memory(table: Any, reading: Reading) -> Iterator[Item]:
    """Yield the items of a table in memory; relative paths begin at the current folder.

    Raises DataError for values that cannot be read.
    """
    content = arrow.table_content(table)
    rows = partial(arrow.table_rows, content, MEMORY)
    yield from read_items(rows, Path(MEMORY), reading, selects_columns=True)


def read_items(
    rows: Rows, path: Path, reading: Reading, *, selects_columns: bool = False
) -> Iterator[Item]:
    """Yield the items of the rows of the table at ``path``.

    The rows are read twice: first for the names of the columns and for the rows that are of one
    item, with problems that are not recorded, then for their values. ``selects_columns``: ``rows``
    follows ``Reading.only``, and all rows have the same columns.
    """
    start = [row for _, row in islice(rows(reading.without_records()), START_ROWS)]
    named = replace(reading, columns=_with_packed_pictures(reading.columns, start))
    available, keys = _survey(rows, start, path, named, selects_columns)
    if not available:
        for _ in rows(reading):  # unreadable rows are recorded
            pass
        return
    if reading.expected is not None:
        reading.expected.number += len(keys)
    columns = resolve_columns(named.columns, available, path, start)
    names = [str(name).strip() for name in (columns.image, columns.text) if name is not None]
    reading.sources.append(f"{path.name} (column{'s' * (len(names) > 1)} {' and '.join(names)})")
    _record_likely_columns(columns, start, reading)
    pictures = PictureFolder(path, reading)
    yield from items_from_rows(rows(reading), columns, pictures, reading, keys.repeats())


def _record_likely_columns(
    columns: Columns, rows: Sequence[Mapping[str, Any]], reading: Reading
) -> None:
    """Record columns that look like pictures or captions where no such column was found."""
    if columns.image is None and reading.need_pictures:
        for name in likely_columns("image", columns, rows):
            reading.problems.add("column that may name pictures, not used (--image-column)", name)
    if columns.text is None:
        for name in likely_columns("text", columns, rows):
            reading.problems.add("column that may hold captions, not used (--text-column)", name)


def _with_packed_pictures(columns: Columns, rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Return the columns; the first one of packed pictures is named if none of pictures is."""
    if columns.image is not None:
        return columns
    packed = (
        name
        for row in rows
        for name, value in row.items()
        if isinstance(value[0] if isinstance(value, list) and value else value, PackedName)
    )
    return replace(columns, image=next(packed, None))


def _survey(
    rows: Rows,
    start: Sequence[Mapping[str, Any]],
    path: Path,
    reading: Reading,
    selects_columns: bool,
) -> tuple[Collection[str], RowKeys]:
    """Return the columns of all rows in order, and the keys of the rows.

    ``start``: the first rows.
    """
    available = {name: None for row in start for name in row}
    folder = (reading.pictures or path.parent).absolute()
    while True:
        columns = key_columns(reading.columns, available)
        keys = RowKeys(columns, folder)
        probing = reading.without_records()
        if selects_columns:
            probing.only = frozenset(filter(None, (columns.id, columns.image)))
        for _, row in rows(probing):
            if not available.keys() >= row.keys():
                available |= dict.fromkeys(row)
                if key_columns(reading.columns, available) != columns:
                    break  # the rows before this one have other keys
            keys.add(row)
        else:
            return available, keys

"""Tables of items: the format is chosen by the file's ending, and for some by its content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xmodal.data.dataset import Item
from xmodal.data.readers import delimited, flickr_token, json_array, json_lines, parquet
from xmodal.data.readers.columns import resolve_columns
from xmodal.data.readers.items import Row, items_from_rows
from xmodal.data.readers.pictures import PictureFolder
from xmodal.data.readers.reading import Reading

ReadRows = Callable[[Path, Reading], Iterator[tuple[str, dict[str, Any]]]]

FORMATS: dict[str, ReadRows] = {
    ".jsonl": json_lines.read_rows,
    ".csv": delimited.read_rows,
    ".parquet": parquet.read_rows,
    ".tsv": delimited.read_rows,
    ".json": json_array.read_rows,
    ".ndjson": json_lines.read_rows,
    ".txt": delimited.read_rows,
    ".token": flickr_token.read_rows,
}
"""Reader of each ending (lower case). Readers yield (place, row), for example ("line 7", {...});
they record unreadable rows in the problems, and raise DataError if the file is unreadable."""


def read_table(path: Path, reading: Reading) -> Iterator[Item]:
    """Yield the items of a table; a column that only some rows have is a column of the table."""
    read = FORMATS[path.suffix.lower()]
    if read is delimited.read_rows and flickr_token.is_token_file(path, reading.without_records()):
        read = flickr_token.read_rows
    yield from read_items(read(path, reading), path, reading)


def read_items(rows: Iterator[Row], path: Path, reading: Reading) -> Iterator[Item]:
    """Yield the items of the rows of the table at ``path``."""
    found = list(rows)
    if not found:
        return
    available = list(dict.fromkeys(name for _, row in found for name in row))
    columns = resolve_columns(reading.columns, available, path)
    named = [str(name).strip() for name in (columns.image, columns.text) if name is not None]
    reading.sources.append(f"{path.name} (column{'s' * (len(named) > 1)} {' and '.join(named)})")
    yield from items_from_rows(found, columns, PictureFolder(path, reading), reading.problems)

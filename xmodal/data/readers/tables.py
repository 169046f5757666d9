"""Tables of items: the format is chosen by the file's ending."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xmodal.data.dataset import Item, Problems
from xmodal.data.readers import delimited, json_array, json_lines, parquet
from xmodal.data.readers.columns import Columns, resolve_columns
from xmodal.data.readers.items import item_from_row

ReadRows = Callable[[Path, Problems], Iterator[tuple[str, dict[str, Any]]]]

FORMATS: dict[str, ReadRows] = {
    ".jsonl": json_lines.read_rows,
    ".csv": delimited.read_rows,
    ".parquet": parquet.read_rows,
    ".tsv": delimited.read_rows,
    ".json": json_array.read_rows,
    ".ndjson": json_lines.read_rows,
}
"""Reader of each ending (lower case). Readers yield (place, row), for example ("line 7", {...});
they record unreadable rows in the problems, and raise DataError if the file is unreadable."""


def read_table(
    path: Path, columns: Columns, problems: Problems, need_pictures: bool = True
) -> Iterator[Item]:
    """Yield the items of a table; a column that only some rows have is a column of the table.

    Without ``need_pictures`` files of pictures may be missing.
    """
    rows = list(FORMATS[path.suffix.lower()](path, problems))
    if not rows:
        return
    available = list(dict.fromkeys(name for _, row in rows for name in row))
    resolved = resolve_columns(columns, available, path)
    for place, row in rows:
        item = item_from_row(row, place, resolved, path.parent, problems, need_pictures)
        if item is not None:
            yield item

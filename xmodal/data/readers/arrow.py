"""Arrow IPC files and streams (.arrow, .feather), also those of ``datasets.save_to_disk``.

Files are memory-mapped. The bytes of pictures are not read. A table in memory is read like a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from xmodal.data.packed.tables import arrow_batches, column_path, open_arrow, table_errors
from xmodal.data.readers.arrow_columns import (
    are_pictures,
    batch_rows,
    may_hold_pictures,
    picture_values,
    readable_values,
    recorded_values,
)
from xmodal.data.readers.columns import COLUMN_NAMES
from xmodal.data.readers.hub_features import class_names, with_names
from xmodal.data.readers.reading import Reading
from xmodal.errors import DataError

BATCH_ROWS = 1024
MAX_EMPTY_ROWS = 100_000
"""Maximum number of rows in a batch whose values and file have less than one bit for each row."""
PICTURE_ROWS = 32
"""Rows among which the first picture of a column is looked for."""


def read_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("row N", row) from 1; record values that cannot be read.

    Raises DataError if the file is not readable.
    """
    import pyarrow as pa

    with table_errors(path), pa.memory_map(str(path)) as file:
        yield from _File(file.read_buffer(), path, reading).rows()


def table_rows(content: Any, name: str, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("row N", row) of a table in memory, from :func:`table_content`.

    Raises DataError for bytes of pictures, which only a file keeps.
    """
    table = _File(content, Path(name), reading)
    if table.pictures:
        raise DataError(
            f"column {min(table.pictures)} holds pictures, expected paths: write the table to a "
            ".parquet file, and read this file"
        )
    yield from table.rows()


def table_content(table: Any) -> Any:
    """Return a table in memory as an Arrow stream: of pyarrow, pandas, polars and others.

    ``table`` has the method ``__arrow_c_stream__``. The unnamed index of a DataFrame is left out.
    Raises DataError for values that Arrow does not have, such as open pictures.
    """
    import pyarrow as pa

    try:
        found = table if isinstance(table, pa.Table) else pa.table(_with_path_texts(table))
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"the table has values that cannot be read ({reason}): expected texts, numbers, dates, "
            "paths of pictures, and lists of them"
        ) from None
    found = found.select([name for name in found.column_names if not _is_unnamed_index(name)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, found.schema) as writer:
        writer.write_table(found)
    return sink.getvalue()


def _with_path_texts(table: Any) -> Any:
    """Return a table of pandas with texts in place of the objects Path; others unchanged."""
    if type(table).__module__.partition(".")[0] != "pandas":
        return table
    paths = {
        name: column.map(lambda one: str(one) if isinstance(one, PurePath) else one)
        for name, column in table.items()
        if column.dtype == object and any(isinstance(one, PurePath) for one in column)
    }
    return table.assign(**paths) if paths else table


def _is_unnamed_index(name: str) -> bool:
    """Whether a column is the index of a DataFrame that has no name, as pandas calls it."""
    return name.startswith("__index_level_") and name.endswith("__")


class _File:
    """The content of a file: its columns to read, and which of them hold pictures."""

    def __init__(self, content: Any, path: Path, reading: Reading) -> None:
        self._content, self._reading = content, reading
        self._path = path.absolute()
        schema = open_arrow(content).schema
        only = reading.only
        self._numbers = [n for n, name in enumerate(schema.names) if only is None or name in only]
        self._names = class_names(schema)
        start = next(self._batches(), None)
        self.pictures = (
            {
                field.name
                for field, column in zip(start.schema, start.columns, strict=True)
                if self._holds_pictures(field, column)
            }
            if start is not None
            else set()
        )

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ("row N", row)."""
        first = 0
        for batch in self._batches():
            for start in range(0, len(batch), BATCH_ROWS):
                part = batch.slice(start, BATCH_ROWS)
                columns = [
                    (field.name, self._values(field.name, column, first))
                    for field, column in zip(part.schema, part.columns, strict=True)
                ]
                yield from batch_rows(columns, first, len(part))
                first += len(part)

    def _batches(self) -> Iterator[Any]:
        limit = MAX_EMPTY_ROWS + 8 * len(self._content)
        for batch in arrow_batches(self._content, self._numbers):
            batch.validate(full=True)  # offsets of a damaged file may be outside of it
            if len(batch) > max(limit, 8 * batch.nbytes):
                raise OSError(
                    f"a batch of {len(batch):,} rows has {batch.nbytes:,} bytes of values"
                )
            if len(batch):
                yield batch

    def _holds_pictures(self, field: Any, column: Any) -> bool:
        if not may_hold_pictures(field.type):
            return False
        named = self._reading.columns.image
        is_image = field.name == named or (named is None and field.name in COLUMN_NAMES["image"])
        values = islice(readable_values(column), PICTURE_ROWS)
        return any(are_pictures([value], is_image) for value in values)

    def _values(self, name: str, column: Any, first: int) -> list[Any]:
        if name in self.pictures:
            return picture_values(column, column_path(self._path, name), first)
        values = recorded_values(column, name, first, self._reading.problems)
        return with_names(values, self._names[name]) if name in self._names else values

"""Parquet (.parquet), read in batches of rows; the bytes of pictures are not read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.data.packed.names import PackedName
from xmodal.data.packed.tables import column_chunks, column_path, table_errors
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

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 4096
BATCH_BYTES = 2**23
"""Bounds of the rows that are read at a time, and of the bytes of their columns."""
DICTIONARY_BYTES = 2**26
"""Bound of the rows that are read at a time, times the largest values of the dictionaries."""
PICTURE_ROWS = 32
"""Rows among which the first picture of a column is looked for."""


def read_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("row N", row) from 1; record values that cannot be read.

    Raises DataError if the file is not readable.
    """
    import pyarrow.parquet as pq

    with (
        table_errors(path),
        pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file,
    ):
        yield from _File(file, path, reading).rows()


class _File:
    """An open file: its columns to read, and which of them hold pictures."""

    def __init__(self, file: pq.ParquetFile, path: Path, reading: Reading) -> None:
        self._file, self._reading = file, reading
        self._path = path.absolute()
        self._names = class_names(file.schema_arrow)
        only = reading.only
        self._types = {f.name: f.type for f in file.schema_arrow if only is None or f.name in only}
        self._pictures = {name for name in self._types if self._holds_pictures(name)}

    def _holds_pictures(self, name: str) -> bool:
        if not may_hold_pictures(self._types[name]):
            return False
        named = self._reading.columns.image
        values: list[Any] = []
        for batch in self._file.iter_batches(1, columns=[name], use_threads=False):
            values += readable_values(batch.column(0))
            if len(values) == PICTURE_ROWS or are_pictures(values, named == name):
                break
        is_image = name == named or (named is None and name in COLUMN_NAMES["image"])
        return are_pictures(values, is_image)

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ("row N", row)."""
        import pyarrow as pa

        first = 0
        groups = range(self._file.num_row_groups)
        pool = pa.default_memory_pool()
        for unread, run in groupby(groups, self._unread_pictures):
            for columns, number in self._batches(list(run), unread, first):
                pool.release_unused()  # halves the memory of the process
                yield from batch_rows(columns, first, number)
                first += number

    def _unread_pictures(self, group: int) -> frozenset[str]:
        """Return the columns of a row group that have a picture in each row, by its statistics."""
        found = set()
        for path, chunk in column_chunks(self._file, group, self._pictures).items():
            name = path.removesuffix(".bytes")
            statistics = chunk.statistics
            if name in self._pictures and statistics is not None and statistics.null_count == 0:
                found.add(name)
        return frozenset(found)

    def _batches(
        self, groups: list[int], unread: frozenset[str], first: int
    ) -> Iterator[tuple[list[tuple[str, list[Any]]], int]]:
        """Yield the values of the columns and the number of rows, for some rows at a time."""
        names = [name for name in self._types if name not in unread]
        total = sum(self._file.metadata.row_group(group).num_rows for group in groups)
        if not names:
            for start in range(first, first + total, BATCH_ROWS):
                number = min(BATCH_ROWS, first + total - start)
                yield self._columns({}, unread, start, number), number
            return
        rows = self._rows_of_a_batch(groups, names)
        for batch in self._file.iter_batches(
            rows, row_groups=groups, columns=names, use_threads=False
        ):
            read = {field.name: batch.column(k) for k, field in enumerate(batch.schema)}
            yield self._columns(read, unread, first, batch.num_rows), batch.num_rows
            first += batch.num_rows

    def _rows_of_a_batch(self, groups: list[int], names: list[str]) -> int:
        """Return the rows whose columns have about ``BATCH_BYTES``.

        A row may have any value of a dictionary; so their number is also bounded by the largest
        one, or by the size of all dictionaries where it is not small.
        """
        size = total = largest = 0
        for group in groups:
            total += self._file.metadata.row_group(group).num_rows
            chunks = column_chunks(self._file, group, names).values()
            size += sum(chunk.total_uncompressed_size for chunk in chunks)
            largest = max(largest, sum(map(_dictionary_bytes, chunks)))
        rows = BATCH_BYTES * total // max(1, size)
        if DICTIONARY_BYTES // max(1, largest) < min(rows, BATCH_ROWS):
            largest = min(largest, max(self._largest_value(group, names) for group in groups))
        return max(1, min(BATCH_ROWS, rows, DICTIONARY_BYTES // max(1, largest)))

    def _largest_value(self, group: int, names: list[str]) -> int:
        """Return the bytes of the largest texts of the dictionaries of a row group, summed.

        Only the first row is read; a dictionary comes with it.
        """
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        texts = [name for name in names if pa.types.is_string(self._types[name])]
        others = [name for name in names if name not in texts]
        chunks = column_chunks(self._file, group, others).values()
        found = sum(map(_dictionary_bytes, chunks))
        with pq.ParquetFile(
            self._path, memory_map=True, pre_buffer=False, read_dictionary=texts
        ) as file:
            rows = file.iter_batches(1, row_groups=[group], columns=texts, use_threads=False)
            first = next(rows, None) if texts else None
            for column in () if first is None else first.columns:
                values = column.dictionary if pa.types.is_dictionary(column.type) else column
                found += pc.max(pc.binary_length(values)).as_py() or 0
        return found

    def _columns(
        self, read: dict[str, pa.Array], unread: frozenset[str], first: int, number: int
    ) -> list[tuple[str, list[Any]]]:
        columns = []
        for name in self._types:
            prefix = column_path(self._path, name)
            if name in unread:
                values = [PackedName(f"{prefix}/{row}") for row in range(first, first + number)]
            elif name in self._pictures:
                values = picture_values(read[name], prefix, first)
            else:
                values = self._plain(name, read[name], first)
            columns.append((name, values))
        return columns

    def _plain(self, name: str, values: pa.Array, first: int) -> list[Any]:
        found = recorded_values(values, name, first, self._reading.problems)
        return with_names(found, self._names[name]) if name in self._names else found


def _dictionary_bytes(chunk: pq.ColumnChunkMetaData) -> int:
    """Return the bytes of the dictionary of a column, estimated by the ratio of compression."""
    if chunk.dictionary_page_offset is None:
        return 0
    compressed = max(0, chunk.data_page_offset - chunk.dictionary_page_offset)
    size: int = chunk.total_uncompressed_size
    estimate: int = compressed * size // max(1, chunk.total_compressed_size)
    return min(size, estimate)

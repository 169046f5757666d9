"""Parquet and Arrow tables that hold pictures in a column: binary, struct of bytes, or lists."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xmodal.errors import DataError

MAX_ROWS, BATCH_BYTES = 32, 8 * 2**20
"""Maximum rows of a batch of Parquet, and the bytes that a batch should have on average."""
WINDOW = 4
"""Decoded batches that are kept of each column; threads read rows in nearly their order."""
BYTES_FIELD = "bytes"
"""Field with the content of the file in a struct, as the library ``datasets`` writes it."""
Batches = Iterator[tuple[int, Any]]
"""Pairs of the number of the first row of a batch, and an Arrow array of one column."""


class TableContainer:
    """A table whose pictures are read in any order; the order of rows is the fastest.

    See :class:`xmodal.data.packed.pictures.Container`. The place of a picture is its column, its
    row from 0 and, in a list, its number from 0.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._columns: dict[str, _Column] = {}
        with table_errors(path):
            self._table: _Table = _Parquet(path) if is_parquet(path) else _Arrow(path)
        weakref.finalize(self, self._table.close)

    def read(self, place: tuple[str, ...], max_bytes: int) -> bytes | None:
        """Return the bytes of a picture; see :class:`xmodal.data.packed.pictures.Container`."""
        name, numbers = _unquoted(place[0]), place[1:]
        if not 1 <= len(numbers) <= 2 or not all(map(_is_number, numbers)):
            return None
        row, *rest = map(int, numbers)
        if self._table.names.count(name) != 1:
            return None
        with self._lock:
            try:
                with table_errors(self._path):
                    column = self._columns.setdefault(name, _Column(self._table, name))
                    content = _content(column.value(row), rest)
            except DataError as error:
                raise OSError(str(error)) from None
            if content is None:
                return None
            if content.size > max_bytes:
                raise OSError(f"{content.size:,} bytes, expected at most {max_bytes:,}")
            return bytes(content)


class _Table(Protocol):
    """An open table. ``names``: of its columns."""

    names: list[str]

    def start(self, row: int) -> int:
        """Return the first row of the batches that are read to reach a row."""

    def batches(self, name: str, row: int) -> Batches:
        """Yield the batches of a column from ``start(row)`` on."""

    def close(self) -> None:
        """Close the file."""


class _Parquet:
    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        # Without pre_buffer, the pages of a file in mapped memory are read one after the other; by
        # default the column of a whole group of rows is copied. A buffer of the size that the
        # header of a damaged page states would be filled if buffer_size were set.
        self._file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
        self.names = self._file.schema_arrow.names
        self._metadata = self._file.metadata
        groups = [self._metadata.row_group(g) for g in range(self._metadata.num_row_groups)]
        self._starts: npt.NDArray[np.int64] = np.array(
            [0, *accumulate(group.num_rows for group in groups)]
        )

    def start(self, row: int) -> int:
        return int(self._starts[self._group(row)])

    def batches(self, name: str, row: int) -> Batches:
        if row >= self._starts[-1]:
            return
        first = self._group(row)
        groups = range(first, self._metadata.num_row_groups)
        position = int(self._starts[first])
        rows = self._batch_rows(name, first)
        for batch in self._file.iter_batches(rows, row_groups=groups, columns=[name]):
            yield position, batch.column(batch.schema.names.index(name))
            position += len(batch)

    def close(self) -> None:
        self._file.close()

    def _group(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _batch_rows(self, name: str, group: int) -> int:
        """Return the number of rows of batches of about BATCH_BYTES."""
        chunks = column_chunks(self._file, group, [name]).values()
        size = sum(chunk.total_uncompressed_size for chunk in chunks)
        rows = self._metadata.row_group(group).num_rows
        return int(max(1, min(MAX_ROWS, BATCH_BYTES * rows // max(size, 1))))


def column_chunks(file: Any, group: int, names: Collection[str]) -> dict[str, Any]:
    """Return the metadata of columns of a Parquet file in a row group, by path in the schema.

    Raises OSError if it is damaged: a row is read first, because pyarrow ends the process when
    damaged metadata of a column is used. A row group without rows has no such metadata here.
    """
    if not names:
        return {}
    rows = file.iter_batches(1, row_groups=[group], columns=list(names), use_threads=False)
    if next(rows, None) is None:
        return {}
    metadata = file.metadata.row_group(group)
    found = {}
    for number in range(metadata.num_columns):
        column = file.schema.column(number)
        if column.path in names or column.path.partition(".")[0] in names:
            found[column.path] = chunk = metadata.column(number)
            if chunk.physical_type != column.physical_type:
                raise OSError(f"column {column.path} has two types")
    return found


class _Arrow:
    """Arrow IPC, as a stream (the files of ``datasets``) or as a file (Feather), memory-mapped."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._map = pa.memory_map(str(path))
        try:
            self._content = self._map.read_buffer()
            self.names = open_arrow(self._content).schema.names
        except BaseException:
            self._map.close()
            raise

    def start(self, row: int) -> int:
        return 0

    def batches(self, name: str, row: int) -> Batches:
        position = 0
        for batch in arrow_batches(self._content, [self.names.index(name)]):
            column = batch.column(0)
            column.validate(full=True)  # offsets of a damaged file may be outside of it
            yield position, column
            position += len(batch)

    def close(self) -> None:
        self._map.close()


def open_arrow(content: Any, columns: list[int] | None = None) -> Any:
    """Return the reader of an Arrow file or stream; only ``columns``, by number, are decoded.

    ``content``: a pyarrow.Buffer.
    """
    import pyarrow as pa

    options = pa.ipc.IpcReadOptions(included_fields=columns)
    is_file = content[:6].to_pybytes() == b"ARROW1"
    return (pa.ipc.open_file if is_file else pa.ipc.open_stream)(content, options=options)


def arrow_batches(content: Any, columns: list[int] | None = None) -> Iterator[Any]:
    """Yield the record batches of an Arrow file or stream; see :func:`open_arrow`.

    Raises OSError for a batch of fewer than 0 rows, and the errors of pyarrow.
    """
    reader = open_arrow(content, columns)
    batches = reader
    if hasattr(reader, "num_record_batches"):
        batches = map(reader.get_batch, range(reader.num_record_batches))
    for batch in batches:
        if batch.num_rows < 0:
            raise OSError(f"a batch has {batch.num_rows:,} rows")
        yield batch


class _Column:
    """A window of the batches of one column, which moves forward over the rows."""

    def __init__(self, table: _Table, name: str) -> None:
        self._table, self._name = table, name
        self._window: deque[tuple[int, Any]] = deque(maxlen=WINDOW)
        self._batches: Batches | None = None
        self._position = 0

    def value(self, row: int) -> Any:
        """Return the Arrow scalar of a row, None after the last row."""
        for first, column in self._window:
            if first <= row < first + len(column):
                return column[row - first]
        if self._batches is None or not self._table.start(row) <= self._position <= row:
            self._batches = self._table.batches(self._name, row)
        batches, self._batches = self._batches, None  # an error ends the batches
        for first, column in batches:
            self._position = first + len(column)
            self._window.append((first, column))
            if row < self._position:
                self._batches = batches
                return column[row - first]
        return None


def is_parquet(path: Path) -> bool:
    """Return whether a table is in Parquet, by its ending."""
    return path.suffix.lower() == ".parquet"


def is_picture_type(type_: Any) -> bool:
    """Return whether an Arrow type holds the content of files.

    It is binary, a struct with a binary field BYTES_FIELD, or a list of these.
    """
    import pyarrow.types as types

    if types.is_struct(type_):
        place = type_.get_field_index(BYTES_FIELD)
        return place >= 0 and _is_binary(type_.field(place).type)
    if _is_list(type_):
        return not _is_list(type_.value_type) and is_picture_type(type_.value_type)
    return _is_binary(type_)


def column_path(path: Path, column: str) -> str:
    """Return the virtual path of a column; "/" and the row from 0 are added for a picture."""
    return str(path / _quoted(column))


@contextmanager
def table_errors(path: Path) -> Iterator[None]:
    """Raise DataError for the errors of pyarrow."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        kind = "Parquet" if is_parquet(path) else "Arrow"
        raise DataError(f"{path} is not a readable {kind} file: {reason}") from None


def _content(value: Any, numbers: list[int]) -> Any:
    """Return the Arrow buffer of the picture of a scalar, None if it holds none."""
    if value is None or not value.is_valid or not is_picture_type(value.type):
        return None
    if _is_list(value.type) != bool(numbers):
        return None
    if numbers:
        several = value.values
        return _content(several[numbers[0]], []) if numbers[0] < len(several) else None
    if BYTES_FIELD in getattr(value.type, "names", ()):
        value = value[BYTES_FIELD]
    return value.as_buffer() if value.is_valid else None


def _is_binary(type_: Any) -> bool:
    import pyarrow.types as types

    return bool(
        types.is_binary(type_)
        or types.is_large_binary(type_)
        or types.is_binary_view(type_)
        or types.is_fixed_size_binary(type_)
    )


def _is_list(type_: Any) -> bool:
    import pyarrow.types as types

    return bool(
        types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_)
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 16


def _quoted(name: str) -> str:
    """Return the name of a column as one part of a path: "%" and "/" are percent-encoded."""
    if name in ("", ".", ".."):
        return f"%{name}"
    return name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")


def _unquoted(part: str) -> str:
    """Return the name of a column from a part of a path."""
    if part in ("%", "%.", "%.."):
        return part[1:]
    return part.replace("%00", "\0").replace("%2F", "/").replace("%25", "%")

"""Parquet (.parquet), read in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.data.readers.reading import Reading
from xmodal.data.readers.values import plain_value
from xmodal.errors import DataError

BATCH_ROWS = 4096


def read_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("row N", row) from 1; ``reading`` is not changed: a row has no problem of its own.

    Raises DataError if the file is not readable.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", plain_value(row)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None

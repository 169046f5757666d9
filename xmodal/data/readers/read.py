"""Read items from a folder or a table.

Supported layouts:

    photos/metadata.jsonl|csv|parquet   a table with a file_name column (the "imagefolder" layout);
                                        one level down, the folder names the split:
                                        photos/train/metadata.jsonl
    photos/**/a.jpg + a.txt             a caption file beside each picture
    items.csv|tsv|jsonl|ndjson|json|parquet
                                        a table with image and text columns; labels on request
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xmodal.data.dataset import Dataset, Problems
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.folder import read_folder
from xmodal.data.readers.items import unique_items
from xmodal.data.readers.tables import FORMATS, read_table
from xmodal.errors import DataError


def read(
    source: str | Path,
    columns: Columns | None = None,
    *,
    label_column: str | None = None,
    need_pictures: bool = True,
) -> Dataset:
    """Read a folder or a table; the module's docstring lists the layouts.

    Relative picture paths are relative to the table's folder. ``columns`` names columns; those it
    does not name are found by ``COLUMN_NAMES``. Labels are read only from ``label_column`` (default
    ``columns.label``). Unused columns are stored as fields of the items. Rows and files that cannot
    be used are recorded in ``Dataset.problems``. Without ``need_pictures``, for data whose features
    are given, the pictures that a table names may be missing.

    Raises DataError if no item can be used, ConfigError for a column that the table lacks.
    """
    path = Path(source)
    columns = columns or Columns()
    columns = replace(columns, label=label_column or columns.label)
    problems = Problems()
    if path.is_dir():
        found = read_folder(path, columns, problems, need_pictures)
    elif path.is_file():
        if path.suffix.lower() not in FORMATS:
            raise DataError(
                f"{path} has the ending {path.suffix!r}, expected a folder or a table "
                f"({', '.join(FORMATS)})"
            )
        found = read_table(path, columns, problems, need_pictures)
    else:
        raise DataError(f"{path} does not exist, expected a folder or a table of pictures")
    items = tuple(unique_items(found, problems))
    if not items:
        reasons = "; ".join(problems.summary_lines()) or "it is empty"
        raise DataError(f"{path} has no usable item: {reasons}")
    name = path.name or str(path)
    return Dataset(items, name=name, problems=problems, label_column=columns.label)

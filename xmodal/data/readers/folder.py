"""Folders of pictures: with a metadata table, or with caption files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from xmodal.data.dataset import Item, Problems
from xmodal.data.images import SUFFIXES
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.tables import read_table
from xmodal.data.readers.values import clean_text
from xmodal.errors import ConfigError, DataError

METADATA_SUFFIXES = (".jsonl", ".csv", ".parquet")
"""Endings of metadata tables in the imagefolder layout of the library ``datasets``."""


def read_folder(folder: Path, columns: Columns, problems: Problems) -> Iterator[Item]:
    """Yield the items of a folder.

    Read the metadata table of ``folder``, else the tables of its direct subfolders (the names of
    subfolders are prefixes of ids and names of splits), else pictures with caption files. Raises
    ConfigError if ``columns`` names columns and there is no table.
    """
    table = _metadata_table(folder)
    if table:
        yield from read_table(table, columns, problems)
        return
    subfolders = (child for child in sorted(folder.iterdir()) if child.is_dir())
    tables = {child.name: _metadata_table(child) for child in subfolders}
    if any(tables.values()):
        for name, table in tables.items():
            for item in read_table(table, columns, problems) if table else ():
                yield replace(item, id=f"{name}/{item.id}", split=item.split or name)
        return
    if columns != Columns():
        raise ConfigError(f"column names were given, but {folder} has no metadata table")
    yield from _read_captions(folder, problems)


def _metadata_table(folder: Path) -> Path | None:
    """Return the metadata table of a folder, if any. Raises DataError if there are several."""
    candidates = [folder / f"metadata{suffix}" for suffix in METADATA_SUFFIXES]
    tables = [table for table in candidates if table.is_file()]
    if len(tables) > 1:
        names = " and ".join(table.name for table in tables)
        raise DataError(f"{folder} has {names}, expected one: name the table instead of the folder")
    return tables[0] if tables else None


def _read_captions(folder: Path, problems: Problems) -> Iterator[Item]:
    """Yield an item for each picture below ``folder``, with the text of its .txt file, if any."""
    for base, subfolders, names in os.walk(folder):
        subfolders.sort()  # the order in which os.walk visits them
        for name in sorted(names):
            path = Path(base, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                text = _caption(path.with_suffix(".txt"), folder, problems)
                captions = () if text is None else (text,)
                yield Item(path.relative_to(folder).as_posix(), (path,), captions)


def _caption(path: Path, folder: Path, problems: Problems) -> str | None:
    if not path.is_file():
        return None
    try:
        text = clean_text(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        problems.add("caption not in UTF-8", path.relative_to(folder))
        return None
    if text is None:
        problems.add("caption empty", path.relative_to(folder))
    return text

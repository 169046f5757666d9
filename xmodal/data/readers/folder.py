"""Folders of pictures: with a metadata table, a file of captions, or caption files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from xmodal.data.dataset import Item
from xmodal.data.picture_formats import is_picture_name
from xmodal.data.readers import coco, flickr_token, karpathy
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.json_array import load_json
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.tables import read_items, read_table
from xmodal.data.readers.text_lines import read_text
from xmodal.data.readers.values import clean_captions
from xmodal.data.split import role_of
from xmodal.errors import ConfigError, DataError

METADATA_SUFFIXES = (".jsonl", ".csv", ".parquet")
"""Endings of metadata tables in the imagefolder layout of the library ``datasets``."""
CAPTION_TABLES = ("captions.jsonl", "captions.csv", "captions.tsv", "captions.txt")
"""Names of tables of captions, which public sets of captions have beside or above the pictures."""


def read_folder(folder: Path, reading: Reading) -> Iterator[Item]:
    """Yield the items of a folder.

    Read the metadata table of ``folder``, else the tables of its direct subfolders (the names of
    subfolders are prefixes of ids, and names of splits if one of them is understood as such), else
    its files of COCO captions, of Karpathy's format or of Flickr, else pictures with caption files.
    Raises ConfigError if columns are named and there is no table, DataError for several tables.
    """
    table = _metadata_table(folder)
    if table:
        yield from read_table(table, reading)
        return
    subfolders = (child for child in sorted(folder.iterdir()) if child.is_dir())
    tables = {child.name: _metadata_table(child) for child in subfolders}
    if any(tables.values()):
        splits = any(role_of(name) for name, table in tables.items() if table)
        for name, table in tables.items():
            for item in read_table(table, reading) if table else ():
                split = item.split or (name if splits else None)
                yield replace(item, id=f"{name}/{item.id}", split=split)
        return
    captions = _caption_file_items(folder, reading)
    if captions is not None:
        yield from captions
        return
    if reading.columns != Columns():
        raise ConfigError(f"column names were given, but {folder} has no metadata table")
    yield from _read_captions(folder, reading)


def _metadata_table(folder: Path) -> Path | None:
    """Return the metadata table of a folder, if any. Raises DataError if there are several."""
    return _only_one(folder, [folder / f"metadata{suffix}" for suffix in METADATA_SUFFIXES])


def _only_one(folder: Path, candidates: list[Path]) -> Path | None:
    tables = [table for table in candidates if table.is_file()]
    if len(tables) > 1:
        names = " and ".join(table.name for table in tables)
        raise DataError(f"{folder} has {names}, expected one: name the table instead of the folder")
    return tables[0] if tables else None


def _caption_file_items(folder: Path, reading: Reading) -> Iterator[Item] | None:
    """Return the items of the caption files of a folder, None if it has none.

    Several COCO files are splits, which their names name.
    """
    found = [(path, load_json(path, reading)) for path in _matching(folder, coco.FILES)]
    of_coco = [(path, content) for path, content in found if coco.is_coco(content)]
    if of_coco:
        return _coco_items(of_coco, reading)
    of_karpathy = [
        path
        for path in _matching(folder, karpathy.FILES)
        if karpathy.is_karpathy(load_json(path, reading))
    ]
    tables = [folder / name for name in CAPTION_TABLES]
    table = _only_one(folder, [*of_karpathy, *_matching(folder, flickr_token.FILES), *tables])
    return None if table is None else read_table(table, reading)


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _coco_items(files: list[tuple[Path, Any]], reading: Reading) -> Iterator[Item]:
    for path, content in files:
        split = coco.split_of(path) if len(files) > 1 else None
        rows = partial(coco.rows_of, content, split=split)
        yield from read_items(rows, path, reading)


def _read_captions(folder: Path, reading: Reading) -> Iterator[Item]:
    """Yield an item for each picture below ``folder``, with the text of its .txt file, if any."""
    captioned = False
    for base, subfolders, names in os.walk(folder):
        subfolders.sort()  # the order in which os.walk visits them
        for name in sorted(names):
            path = Path(base, name)
            if is_picture_name(name) and not name.startswith("."):
                captions = _captions(path.with_suffix(".txt"), folder, reading)
                captioned = captioned or bool(captions)
                yield Item(path.relative_to(folder).as_posix(), (path,), captions)
    reading.sources.append("caption files beside the pictures" if captioned else "a folder")


def _captions(path: Path, folder: Path, reading: Reading) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    try:
        captions, _ = clean_captions(read_text(path, reading))
    except DataError:
        encoding = (reading.encoding or "utf-8").upper()
        reading.problems.add(f"caption not in {encoding}", path.relative_to(folder))
        return ()
    if not captions:
        reading.problems.add("caption empty", path.relative_to(folder))
    return captions

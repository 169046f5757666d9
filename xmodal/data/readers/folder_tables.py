"""Search for the table that names the pictures of a folder."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from xmodal.data.items import Item
from xmodal.data.picture_formats import is_picture_name
from xmodal.data.readers import coco, flickr_token, karpathy
from xmodal.data.readers.beside import Pictures, is_caption_name
from xmodal.data.readers.columns import resolve_columns, value_at
from xmodal.data.readers.json_array import Kind, kind_of
from xmodal.data.readers.pictures import PictureFolder
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.tables import FORMATS, read_items, read_table
from xmodal.data.readers.values import clean_pictures
from xmodal.data.readers.walk import Listing
from xmodal.errors import ConfigError, DataError

TABLE_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".json", ".parquet")
"""Endings of tables (lower case)."""
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Names of metadata tables in the imagefolder layout of the library ``datasets``."""
CAPTIONS = ("captions.jsonl", "captions.csv", "captions.tsv", "captions.txt", "captions.parquet")
"""Names of tables of captions, which public sets of captions have beside or above the pictures."""
MAX_TABLES, MAX_ROWS = 20, 20
"""Tables of one folder, and rows of each, in which names of pictures are searched for."""

MAX_JSON_BYTES = 64 * 2**20
"""Maximum size of a JSON file with another name than usual, which is read as a whole."""


class FolderTables:
    """Finds the tables of folders.

    ``used``: those that are read; ``recorded``: those that are not, for a reason of their own.
    """

    def __init__(self, root: Path, reading: Reading) -> None:
        self._root, self._reading = root, reading
        self.used: set[Path] = set()
        self.recorded: set[Path] = set()

    def items(self, listing: Listing) -> Iterator[Item] | None:
        """Return the items of the table of a folder, None if it has none.

        Raises DataError for several tables of a usual name, and for an unusable one in the root.
        """
        used = self.of(listing.path)
        listing = replace(listing, files=[name for name in listing.files if name not in used])
        if table := self._only_one(listing.path, _with_names(listing, METADATA)):
            return self._read(table)
        if files := self._of_kind("COCO", _matching(listing, coco.FILES)):
            self.used.update(files)
            return self._coco_items(files)
        candidates = self._of_kind("Karpathy", _matching(listing, karpathy.FILES))
        candidates += _matching(listing, flickr_token.FILES)
        candidates += _with_names(listing, CAPTIONS)
        if table := self._only_one(listing.path, candidates) or self._other_table(listing):
            return self._read(table)
        return None

    def of(self, folder: Path) -> set[str]:
        """Return the names of the tables of a folder that are used or recorded."""
        return {path.name for path in self.used | self.recorded if path.parent == folder}

    def _only_one(self, folder: Path, tables: list[Path]) -> Path | None:
        """Return the table if there is one. Several are an error in the root, else recorded."""
        if len(tables) > 1:
            names = " and ".join(table.name for table in tables)
            found = f"{folder} has {names}, expected one: name the table instead of the folder"
            if folder == self._root:
                raise DataError(found)
            self._record("subfolder with several tables, none is used", found, *tables)
            return None
        return tables[0] if tables else None

    def _record(self, kind: str, found: object, *tables: Path) -> None:
        self.recorded.update(tables)
        self._reading.problems.add(kind, found)

    def _read(self, table: Path) -> Iterator[Item]:
        self.used.add(table)
        return read_table(table, self._reading)

    def _of_kind(self, kind: Kind, files: list[Path]) -> list[Path]:
        """Return the JSON files of a kind; damaged ones that are not in the root are recorded."""
        return [path for path in files if self._kind(path) == kind]

    def _kind(self, path: Path) -> Kind:
        try:
            return kind_of(path, self._reading)[0]
        except (DataError, OSError) as error:
            if path.parent in (self._root, self._root / "annotations"):
                raise
            self._record("table of a subfolder not read", error, path)
            return "other"

    def _coco_items(self, files: list[Path]) -> Iterator[Item]:
        """Yield the items of COCO files; several are splits, which their names name."""
        for path in files:
            split = coco.split_of(path) if len(files) > 1 else None
            rows = partial(coco.read_rows, path, split=split)
            yield from read_items(rows, path, self._reading)

    def _other_table(self, listing: Listing) -> Path | None:
        """Return the table of any name that names pictures; several are recorded, none is used."""
        recorded = self.of(listing.path)
        tables = [
            name
            for name in listing.files
            if name.lower().endswith(TABLE_SUFFIXES) and name not in recorded
        ]
        if not tables:
            return None
        pictures = Pictures([name for name in listing.files if is_picture_name(name)])
        is_beside = any(pictures.has_one_of(n) for n in listing.files if is_caption_name(n))
        tables = [n for n in tables if not (is_caption_name(n) and pictures.has_one_of(n))]
        paths = [listing.path / name for name in tables[:MAX_TABLES]]
        found = [path for path in paths if self._names_pictures(path)]
        if len(found) == 1 and not is_beside:
            return found[0]
        others = "caption files" if is_beside else "other tables"
        kind = f"table not used, because there are {others} (name it instead of the folder)"
        for path in found:
            self._record(kind, path.relative_to(self._root), path)
        return None

    def _names_pictures(self, path: Path) -> bool:
        """Whether one of the first rows of a table names a picture that exists."""
        if path.suffix.lower() == ".json" and not _is_small_list(path):
            return False
        probing = replace(self._reading.without_records(), need_pictures=True)
        pictures = PictureFolder(path, probing)
        try:
            rows = list(islice(FORMATS[path.suffix.lower()](path, probing), MAX_ROWS))
            available = list(dict.fromkeys(name for _, row in rows for name in row))
            column = resolve_columns(self._reading.columns, available, path).image
        except (DataError, ConfigError):
            return False
        except OSError as error:
            kind = f"table not readable ({error.strerror})"
            self._record(kind, path.relative_to(self._root), path)
            return False
        if column is None:
            return False
        names = (name for _, row in rows for name in clean_pictures(value_at(row, column)))
        return any(pictures.find(name, probing.problems) is not None for name in names)


def has_usual_table(folder: Path) -> bool:
    """Whether a folder has a table with a usual name."""
    return any((folder / name).is_file() for name in METADATA + CAPTIONS)


def _is_small_list(path: Path) -> bool:
    """Whether a JSON file is a list, and small enough to be read for a look at it."""
    try:
        with open(path, "rb") as file:
            start = file.read(100).lstrip(b"\xef\xbb\xbf \t\r\n")
        return start.startswith(b"[") and path.stat().st_size <= MAX_JSON_BYTES
    except OSError:
        return False


def _with_names(listing: Listing, names: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder that have one of some names, in any case, in their order."""
    found = {name.casefold(): name for name in listing.files if name.casefold() in names}
    return [listing.path / found[name] for name in names if name in found]


def _matching(listing: Listing, patterns: tuple[str, ...]) -> list[Path]:
    """Return the files that match patterns, also those of subfolders: "annotations/*.json"."""
    found: list[Path] = []
    for pattern in patterns:
        folder, _, pattern = pattern.rpartition("/")
        if not folder:
            found += [listing.path / name for name in fnmatch.filter(listing.files, pattern)]
        elif folder in listing.folders:
            found += sorted((listing.path / folder).glob(pattern))
    return found

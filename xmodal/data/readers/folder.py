"""Folders of pictures, with tables, or with caption files beside the pictures.

Every folder below is read. The layouts of one folder, of which the first that is found is used:

    metadata.jsonl|csv|parquet...   a table of the pictures of the folder and of its subfolders
    captions_*.json, dataset_*.json, *.token.txt, captions.csv|tsv|txt|jsonl...
                                    files of COCO, Karpathy and Flickr, tables of captions
    any other table                 if it is the only one that names pictures which exist
    a.jpg with a.txt, a.json        caption files beside the pictures: see the module ``beside``
    images/a.jpg with text/a.txt    the same in a folder beside that of the pictures
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from xmodal.data.items import Item
from xmodal.data.picture_formats import is_picture_name, unread_kind
from xmodal.data.problems import Problems
from xmodal.data.readers.beside import Beside, CaptionFiles, Pictures, is_caption_name
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.folder_tables import TABLE_SUFFIXES, FolderTables, has_usual_table
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.seen_texts import SeenTexts
from xmodal.data.readers.walk import Listing, Tree
from xmodal.data.split import role_of
from xmodal.errors import ConfigError, DataError

PICTURE_FOLDERS = frozenset(
    "images image imgs img pictures photos pics jpg jpegs jpegimages png".split()
)
TEXT_FOLDERS = frozenset("text texts txt captions caption descriptions sentences prompts".split())
"""Usual names of folders whose files have the same names: 3.jpg and 3.txt (lower case)."""
MAX_SPLITS = 100
"""Subfolders of one folder whose names may be those of splits."""
MAX_ENDINGS = 12
"""Endings of files that are no pictures which are recorded one by one."""


def read_folder(folder: Path, reading: Reading) -> Iterator[Item]:
    """Yield the items of a folder and of the folders below it; the docstring above has the layouts.

    Ids are paths of pictures below ``folder``, or those of a table after the path of its folder. If
    a subfolder with a table is named like a split, the names of such subfolders are splits. Files
    that are not used are recorded.

    Raises ConfigError if columns are named and nothing has columns, DataError for several tables
    with a usual name in one folder, and for an unusable one in ``folder`` itself.
    """
    yield from _FolderReader(folder, reading).items()


def _count_pictures(root: Path) -> int:
    """Return the number of pictures below a folder."""
    tree, waiting, count = Tree(root, Problems()), [root], 0
    while waiting:
        listing = tree.listing(waiting.pop())
        count += sum(map(is_picture_name, listing.files))
        waiting += (listing.path / name for name in listing.folders)
    return count


@dataclass(frozen=True)
class _Place:
    """A folder that is to be read. ``split``: of the items of its table, by names of folders.

    ``has_table``: a table names the pictures of this folder or of one above. ``texts``: folder of
    the caption files of its pictures. ``pictures``: folders of the pictures of its caption files.
    """

    path: Path
    split: str | None = None
    has_table: bool = False
    texts: Path | None = None
    pictures: tuple[Path, ...] = ()


class _FolderReader:
    """Reads the folders of a tree one after the other, in sorted order."""

    def __init__(self, root: Path, reading: Reading) -> None:
        self._root, self._reading = root, (reading := replace(reading))
        self._tree = Tree(root, reading.problems)
        self._tables = FolderTables(root, reading)
        self._beside = Beside(root, reading)
        self._named = SeenTexts()
        self._endings: set[str] = set()

    def items(self) -> Iterator[Item]:
        if self._reading.expected is not None:
            self._reading.expected.number += (count := _count_pictures(self._root))
            if count:
                self._reading.expected = None  # tables of the folder name these pictures
        pending = [_Place(self._root)]
        while pending:
            place = pending.pop()
            listing = self._tree.listing(place.path)
            items = self._tables.items(listing)
            if items is not None:
                yield from self._table_items(items, place)
                place = replace(place, has_table=True)
            pictures = [name for name in listing.files if is_picture_name(name)]
            yield from self._picture_items(listing.path, pictures, place, CaptionFiles(listing))
            self._record_unused(listing, pictures, place)
            pending += reversed(self._subfolders(listing, place))
        if self._tables.used:
            return
        if self._reading.columns != Columns() and not self._beside.fields:
            raise ConfigError(f"column names were given, but {self._root} has no metadata table")
        captions = self._beside.captions
        self._reading.sources.append(
            "caption files beside the pictures" if captions else "a folder"
        )

    def _table_items(self, items: Iterator[Item], place: _Place) -> Iterator[Item]:
        """Yield the items of a table; one below the root that cannot be read is recorded."""
        is_root = place.path == self._root
        prefix = "" if is_root else f"{self._tree.relative(place.path)}/"
        try:
            for item in items:
                for image in item.images:
                    self._named.add(os.path.normpath(image))
                yield replace(item, id=prefix + item.id, split=item.split or place.split)
        except (DataError, OSError) as error:
            if is_root:
                raise
            self._reading.problems.add("table of a subfolder not read", error)

    def _picture_items(
        self, folder: Path, pictures: list[str], place: _Place, beside: CaptionFiles
    ) -> Iterator[Item]:
        """Yield the pictures that no table names; record them if there is a table."""
        captions = [beside]
        if place.texts is not None:
            captions.append(CaptionFiles(_listing(place.texts)))
        prefix = "" if folder == self._root else f"{self._tree.relative(folder)}/"
        for name in pictures:
            path = folder / name
            if len(self._named) and os.path.normpath(path) in self._named:
                continue
            if place.has_table:
                kind = "picture that the table of its folder does not name, left out"
                self._reading.problems.add(kind, prefix + name)
            else:
                yield self._beside.item(prefix + name, path, captions)

    def _record_unused(self, listing: Listing, pictures: list[str], place: _Place) -> None:
        """Record the files of a folder that were not read."""
        read = {*pictures, *self._tables.of(listing.path)}
        if others := [name for name in listing.files if name not in read]:
            beside = (name for folder in place.pictures for name in _listing(folder).files)
            known = Pictures([*pictures, *beside])
            for name in others:
                kind = self._unused_kind(name, place, known)
                if kind is not None:
                    self._reading.problems.add(kind, self._tree.relative(listing.path, name))

    def _unused_kind(self, name: str, place: _Place, pictures: Pictures) -> str | None:
        """Return why a file was not used, None for a caption file that was."""
        suffix = PurePath(name).suffix.lower()
        if is_caption_name(name) and pictures.has_one_of(name):
            return "caption file not used, a table names the pictures" if place.has_table else None
        if suffix in TABLE_SUFFIXES:
            return "table that names no picture of this folder, not used"
        if is_caption_name(name):
            return "text without a picture of its name, not used"
        kind = unread_kind(name)
        if kind is not None:
            return kind
        if suffix not in self._endings and len(self._endings) == MAX_ENDINGS:
            return "file with yet another ending, not a picture"
        self._endings.add(suffix)
        return f"file with the ending {suffix}, not a picture" if suffix else "file without ending"

    def _subfolders(self, listing: Listing, place: _Place) -> list[_Place]:
        """Return the subfolders of a folder, with what follows from their names."""
        names = {name: listing.path / name for name in listing.folders}
        splits = len(names) <= MAX_SPLITS and any(
            role_of(name) and has_usual_table(path) for name, path in names.items()
        )
        pictures = [path for name, path in names.items() if name.casefold() in PICTURE_FOLDERS]
        texts = [path for name, path in names.items() if name.casefold() in TEXT_FOLDERS]
        places = []
        for name, path in names.items():
            child = _Place(
                path,
                split=name if splits else place.split,
                has_table=place.has_table,
                texts=_below(place.texts, name),
                pictures=tuple(one for folder in place.pictures if (one := _below(folder, name))),
            )
            if len(texts) == 1 and path in pictures:
                child = replace(child, texts=texts[0])
            elif len(texts) == 1 and path in texts:
                child = replace(child, pictures=tuple(pictures))
            places.append(child)
        return places


def _below(folder: Path | None, name: str) -> Path | None:
    """Return the subfolder of this name, None if there is none."""
    return folder / name if folder is not None and (folder / name).is_dir() else None


def _listing(folder: Path) -> Listing:
    """Return the files of a folder that is recorded when it is read itself."""
    return Tree(folder, Problems()).listing(folder)

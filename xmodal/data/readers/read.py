"""Read items from a folder or a table.

Supported layouts:

    photos/metadata.jsonl|csv|parquet   a table with a file_name column (the "imagefolder" layout);
                                        one level down, the folder names the split:
                                        photos/train/metadata.jsonl
    photos/**/a.jpg + a.txt             a caption file beside each picture
    photos/cat/a.jpg                    labels from folders, on request
    items.csv|tsv|txt|jsonl|ndjson|json|parquet
                                        a table with image and text columns; labels on request.
                                        Rows without ids that name one picture are one item
    coco/annotations/captions_*.json    COCO captions; the file or the folder
    dataset_*.json                      Karpathy's format of COCO, Flickr8k and Flickr30k
    *.token.txt, *.token                Flickr token files: name#number<tab>caption
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from xmodal.data.dataset import Dataset, Item
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.folder import read_folder
from xmodal.data.readers.items import unique_items
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.tables import FORMATS, read_table
from xmodal.data.readers.values import valid_unicode
from xmodal.data.split import role_of
from xmodal.errors import ConfigError, DataError

LabelsFrom = Literal["folders"]
FOLDER_LABELS = "folders of the pictures"
"""``Dataset.label_column`` of labels that are names of folders."""


def read(
    source: str | Path,
    columns: Columns | None = None,
    *,
    label_column: str | None = None,
    pictures: Path | None = None,
    encoding: str | None = None,
    labels_from: LabelsFrom | None = None,
    need_pictures: bool = True,
) -> Dataset:
    """Read a folder or a table; the module's docstring lists the layouts.

    Relative picture paths are relative to ``pictures``, default: the table's folder. ``encoding``:
    of text files, default: UTF-8, or UTF-16 and UTF-32 where they are recognised. ``columns`` names
    columns; those it does not name are found by ``COLUMN_NAMES``. Labels are read only from
    ``label_column`` (default ``columns.label``), or with ``labels_from="folders"`` from the names
    of the folders that hold the pictures. If labels are read and there are no captions, the labels
    are the captions. Unused columns are stored as fields of the items. Rows and files that cannot
    be used are recorded in ``Dataset.problems``. Without ``need_pictures``, for data whose features
    are given, files of pictures may be missing.

    Raises DataError if no item can be used, ConfigError for a column that the table lacks, an
    unknown encoding or a missing folder.
    """
    path = Path(source)
    columns = columns or Columns()
    columns = replace(columns, label=label_column or columns.label)
    if labels_from and columns.label:
        raise ConfigError(
            f"labels are read from the column {columns.label} or from folders, not from both: "
            "leave out --label-column or --labels-from"
        )
    reading = Reading(columns, pictures, encoding, need_pictures)
    items = tuple(unique_items(_items(path, reading), reading.problems))
    if not items:
        reasons = "; ".join(reading.problems.summary_lines()) or "it is empty"
        raise DataError(f"{path} has no usable item: {reasons}")
    if labels_from:
        root = pictures or (path if path.is_dir() else path.parent)
        items = tuple(_with_folder_label(item, root) for item in items)
    without_captions = not any(item.captions for item in items)
    if without_captions and any(item.labels for item in items):
        items = tuple(replace(item, captions=_class_names(item.labels or ())) for item in items)
    return Dataset(
        items,
        name=path.name or str(path),
        problems=reading.problems,
        label_column=FOLDER_LABELS if labels_from else columns.label,
        source=", ".join(dict.fromkeys(reading.sources)),
        class_captions=without_captions and any(item.captions for item in items),
    )


def _items(path: Path, reading: Reading) -> Iterator[Item]:
    if path.is_dir():
        return read_folder(path, reading)
    if not path.is_file():
        raise DataError(f"{path} does not exist, expected a folder or a table of pictures")
    if path.suffix.lower() not in FORMATS:
        raise DataError(
            f"{path} has the ending {path.suffix!r}, expected a folder or a table "
            f"({', '.join(FORMATS)})"
        )
    return read_table(path, reading)


def _with_folder_label(item: Item, root: Path) -> Item:
    """Return the item with the name of the folder of its first picture as its label.

    A folder that is the root, or is named like a split, is no label; the split is that of the first
    folder that is named like one.
    """
    path = item.images[0] if item.images else None
    if not isinstance(path, Path) or not path.is_relative_to(root):
        return item
    folders = path.relative_to(root).parts[:-1]
    split = item.split or next((name for name in folders if role_of(name)), None)
    if not folders or role_of(folders[-1]):
        return replace(item, split=split)
    return replace(item, labels=(valid_unicode(folders[-1]),), split=split)


def _class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels as captions: words are separated by spaces."""
    return tuple(dict.fromkeys(" ".join(label.replace("_", " ").split()) for label in labels))

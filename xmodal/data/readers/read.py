"""Read items from folders, tables and shards.

Supported layouts:

    photos/metadata.jsonl|csv|parquet   a table with a file_name column (the "imagefolder" layout),
                                        at any depth; a folder may name the split:
                                        photos/train/metadata.jsonl
    photos/**/a.jpg + a.txt             a .txt, .caption or .json file beside each picture
    images/1.jpg + text/1.txt           equal names in two folders
    photos/cat/a.jpg                    labels from folders, on request
    items.csv|tsv|txt|jsonl|ndjson|json|parquet|arrow
                                        a table with image and text columns; labels on request.
                                        Rows without ids that name one picture are one item
    {000..010}.tar, folders of shards   webdataset; Parquet and Arrow of the Hugging Face hub
    coco/annotations/captions_*.json    COCO captions; the file or the folder
    dataset_*.json                      Karpathy's format of COCO, Flickr8k and Flickr30k
    *.token.txt, *.token                Flickr token files: name#number<tab>caption
    *.json with conversations           LLaVA; the answers are captions
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Literal, Protocol, TypedDict, Unpack, runtime_checkable

from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.packed.names import container_of, is_tar
from xmodal.data.picture_formats import is_picture_name
from xmodal.data.problems import Problems
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.folder import read_folder
from xmodal.data.readers.items import unique_items
from xmodal.data.readers.picture_list import read_pictures
from xmodal.data.readers.reading import Expected, Reading
from xmodal.data.readers.seen_texts import SeenTexts
from xmodal.data.readers.shards import expand_range, find_shards, read_shards
from xmodal.data.readers.tables import FORMATS, MEMORY, format_ending, read_memory, read_table
from xmodal.data.readers.values import valid_unicode
from xmodal.data.remote import address, is_remote
from xmodal.data.split import role_of
from xmodal.errors import ConfigError, DataError


@runtime_checkable
class ArrowTable(Protocol):
    """A table in memory that other libraries read without a copy: Arrow's C stream interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a capsule with the table."""


LabelsFrom = Literal["folders"]
Sources = str | Path | Sequence[str | Path]
FOLDER_LABELS = "folders of the pictures"
"""``Dataset.label_column`` of labels that are names of folders."""


class Options(TypedDict, total=False):
    """Options of :func:`read` and :func:`iterate`; see :func:`read`."""

    label_column: str | None
    labels_from: LabelsFrom | None
    pictures: Path | None
    encoding: str | None
    separator: str | None
    header: Sequence[str] | None
    need_pictures: bool


def iterate(
    sources: Sources,
    columns: Columns | None = None,
    *,
    problems: Problems | None = None,
    expected: Expected | None = None,
    **options: Unpack[Options],
) -> Iterator[Item]:
    """Yield the items of folders and tables; a table of any length takes little memory.

    The arguments are those of :func:`read`; unusable rows and files are added to ``problems``. An
    item of rows that do not follow each other is yielded at its last row. Labels are not made
    captions. ``expected`` is told the number of items. Raises the errors of :func:`read`, also
    after the first items.
    """
    reading = replace(_reading(columns, options), expected=expected)
    if problems is not None:
        reading.problems = problems
    yield from _iterate(_paths(sources), reading, options.get("labels_from"))


def stream(
    sources: Sources,
    columns: Columns | None = None,
    *,
    problems: Problems | None = None,
    expected: Expected | None = None,
    **options: Unpack[Options],
) -> Iterator[Item]:
    """Yield the items of :func:`read` like :func:`iterate`, which takes little memory.

    If labels are read and no item has a caption, the labels are the captions; the data is then read
    once more, before the first item.
    """
    has_labels = bool(options.get("labels_from") or _reading(columns, options).columns.label)
    as_captions = has_labels and not any(
        item.captions for item in iterate(sources, columns, **options)
    )
    for item in iterate(sources, columns, problems=problems, expected=expected, **options):
        yield _with_label_captions(item) if as_captions else item


def read(
    sources: Sources | ArrowTable, columns: Columns | None = None, **options: Unpack[Options]
) -> Dataset:
    """Read folders, tables and pictures, one or several; the module's docstring lists the layouts.

    A table may be in memory: a pyarrow Table, a DataFrame of pandas or polars, or another object
    with the method ``__arrow_c_stream__``. Its paths begin at the current folder, or at
    ``pictures``.

    ``columns`` names columns; those it does not name are found by ``COLUMN_NAMES``. Unused columns
    are stored as fields of the items. Rows and files that cannot be used are recorded in
    ``Dataset.problems``. The options, all with a default:

    ``label_column`` (default ``columns.label``): where labels are read from; or
    ``labels_from="folders"``: from the names of the folders that hold the pictures. If labels are
    read and there are no captions, the labels are the captions. ``pictures``: folder of relative
    picture paths (default: the table's). ``encoding``: of text files (default: UTF-8, or UTF-16 and
    UTF-32 where they are recognised). ``separator``: of delimited text (default: found in its first
    lines). ``header``: names of the columns of delimited text without a header line.
    ``need_pictures``: False for data whose features are given; then picture files may be missing.

    Of several sources, the end of a source's path is put before those of its ids that an earlier
    source has too ("holiday/a.jpg"). A source that cannot be read, or has no usable item, is a
    problem. Pictures that follow each other are one source.

    Raises DataError if no item can be used or a source does not exist, ConfigError for a column
    that the table lacks, an unknown encoding or a missing folder.

    >>> xmodal.read("photos").source
    'metadata.jsonl (columns file_name and text)'
    >>> import pyarrow as pa
    >>> len(xmodal.read(pa.table({"caption": ["a red circle", "a blue star"]})))
    2
    """
    labels_from = options.get("labels_from")
    reading = replace(_reading(columns, options), in_order=True)
    if isinstance(sources, ArrowTable):
        paths: tuple[Path, ...] = (Path(MEMORY),)
        items = _memory_items(sources, reading, labels_from)
    else:
        paths = _paths(sources)
        items = tuple(_iterate(paths, reading, labels_from))
    without_captions = not any(item.captions for item in items)
    if without_captions and any(item.labels for item in items):
        items = tuple(map(_with_label_captions, items))
    more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
    return Dataset(
        items,
        name=(paths[0].name or str(paths[0])) + more,
        problems=reading.problems,
        label_column=FOLDER_LABELS if labels_from else reading.columns.label,
        source=", ".join(dict.fromkeys(reading.sources)),
        class_captions=without_captions and any(item.captions for item in items),
    )


def _memory_items(
    table: ArrowTable, reading: Reading, labels_from: LabelsFrom | None
) -> tuple[Item, ...]:
    """Return the items of a table in memory. Raises DataError without any."""
    if labels_from or reading.header or reading.separator:
        raise ConfigError(
            "labels_from, header and separator are for files, found a table in memory: name its "
            "columns"
        )
    items = tuple(unique_items(read_memory(table, reading), reading.problems, SeenTexts(), None))
    if not items:
        reasons = "; ".join(reading.problems.summary_lines()) or "it is empty"
        raise DataError(f"the table has no usable item: {reasons}")
    return items


def _paths(sources: Sources) -> tuple[Path, ...]:
    """Return the paths of sources. Raises DataError without any."""
    paths = (sources,) if isinstance(sources, str | Path) else tuple(sources)
    if not paths:
        raise DataError("there are no sources, expected a folder or a table")
    return tuple(map(Path, paths))


def _reading(columns: Columns | None, options: Options) -> Reading:
    columns = columns or Columns()
    columns = replace(columns, label=options.get("label_column") or columns.label)
    if options.get("labels_from") and columns.label:
        raise ConfigError(
            f"labels are read from the column {columns.label} or from folders, not from both: "
            "leave out --label-column or --labels-from"
        )
    header = options.get("header")
    return Reading(
        columns,
        options.get("pictures"),
        options.get("encoding"),
        options.get("need_pictures", True),
        options.get("separator"),
        tuple(header) if header else None,
    )


def _iterate(
    paths: Sequence[Path], reading: Reading, labels_from: LabelsFrom | None
) -> Iterator[Item]:
    """Yield the items of all sources, under unique ids. Raises DataError if there is none."""
    sources: list[tuple[Path, ...]] = []
    for are_pictures, group in groupby(paths, key=_is_picture):
        found = tuple(group)
        sources += [found] if are_pictures else [(path,) for path in found]
    if len(sources) > 1:
        for path in paths:
            if not expand_range(path)[0].exists():
                raise DataError(f"{path} does not exist, expected a folder, a table or a picture")
    seen = SeenTexts()
    total = 0
    for number, source in enumerate(sources):
        items = _items(source, reading)
        if labels_from:
            items = _with_folder_labels(items, source[0], reading)
        count = 0
        try:
            for item in unique_items(items, reading.problems, seen, source[0] if number else None):
                count += 1
                yield item
        except DataError as error:
            if len(sources) == 1:
                raise
            reading.problems.add("source that cannot be read", error)
        else:
            if not count and len(sources) > 1:
                reading.problems.add("source without a usable item", source[0])
        total += count
    if not total:
        reasons = "; ".join(reading.problems.summary_lines()) or "it is empty"
        more = f" and {len(sources) - 1:,} more" if len(sources) > 1 else ""
        raise DataError(f"{paths[0]}{more} has no usable item: {reasons}")


def _is_picture(path: Path) -> bool:
    return is_picture_name(path.name) and not path.is_dir()


def _items(source: tuple[Path, ...], reading: Reading) -> Iterator[Item]:
    """Return the items of a folder, of a table, of the shards of a range, or of pictures."""
    path = source[0]
    if _is_picture(path):
        return read_pictures(source, reading)
    if (shards := find_shards(path)) is not None:
        return read_shards(shards, reading)
    if path.is_dir():
        return read_folder(path, reading)
    if is_remote(path):
        raise DataError(
            f"{address(path)} is on a remote file system, from which xmodal encode reads (--out "
            "parts.parquet): encode it there, or copy it"
        )
    if not path.is_file():
        raise DataError(f"{path} does not exist, expected a folder or a table of pictures")
    if format_ending(path) not in FORMATS:
        raise DataError(
            f"{path} has the ending {path.suffix!r}, expected a folder or a table "
            f"({', '.join(FORMATS)})"
        )
    return read_table(path, reading)


def _with_folder_labels(items: Iterator[Item], source: Path, reading: Reading) -> Iterator[Item]:
    root = reading.pictures or (source if source.is_dir() else source.parent)
    return (_with_folder_label(item, root) for item in items)


def _with_folder_label(item: Item, root: Path) -> Item:
    """Return the item with the name of the folder of its first picture as its label.

    A folder that is the root, or is named like a split, is no label; the split is that of the first
    folder that is named like one.
    """
    path = item.images[0] if item.images else None
    if not isinstance(path, Path) or not path.is_relative_to(root):
        return item
    folders = _folders(path, root)
    split = item.split or next((name for name in folders if role_of(name)), None)
    if not folders or role_of(folders[-1]):
        return replace(item, split=split)
    return replace(item, labels=(valid_unicode(folders[-1]),), split=split)


def _folders(path: Path, root: Path) -> tuple[str, ...]:
    """Return the folders of a picture below ``root``, in a tar archive those inside of it too."""
    container = container_of(path)
    if container is None:
        return path.relative_to(root).parts[:-1]
    inside = path.parts[len(container.parts) : -1] if is_tar(container) else ()
    outside = container.relative_to(root).parts[:-1] if container != root else ()
    return outside + inside


def _with_label_captions(item: Item) -> Item:
    return replace(item, captions=_class_names(item.labels or ()))


def _class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels as captions: words are separated by spaces."""
    return tuple(dict.fromkeys(" ".join(label.replace("_", " ").split()) for label in labels))

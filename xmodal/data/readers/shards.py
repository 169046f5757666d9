"""Sources of several shards: number ranges such as ``{000..010}.tar``, and folders of shards.

A folder of shards holds tar archives, Parquet or Arrow files, and neither pictures nor a metadata
table; below it, folders may be splits. It is the layout of webdataset and img2dataset, of the
Hugging Face hub (``data/train-00000-of-00002.parquet``), and of ``datasets.save_to_disk``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from xmodal.data.items import Item
from xmodal.data.packed.names import TAR_ENDINGS, container_ending
from xmodal.data.picture_formats import is_picture_name
from xmodal.data.problems import Problems
from xmodal.data.readers.reading import Expected, Reading
from xmodal.data.readers.tables import read_table
from xmodal.data.readers.walk import Tree
from xmodal.data.split import role_of
from xmodal.errors import DataError

MAX_SHARDS = 100_000
MAX_STATE_BYTES = 16 * 2**20
"""Maximum size of ``state.json`` and ``dataset_dict.json``."""
NOT_USED = "file beside the shards that is not used"
UNREADABLE = "shard that cannot be read"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_TABLES = frozenset(
    ("metadata.csv", "metadata.jsonl", "metadata.parquet", "captions.csv", "captions.jsonl")
)
_NOTES = re.compile(r"(README|LICENSE|\.|.*_stats\.json$|dataset_infos?\.json$|state\.json$)", re.I)
"""Files that describe shards and hold no items."""


class Shards(NamedTuple):
    """Shards of one source, with the split of each one, and files that are not used."""

    root: Path
    paths: list[tuple[Path, str | None]]
    others: list[Path]


def expand_range(path: Path) -> list[Path]:
    """Return the paths of a name with ranges: ``{08..11}`` counts from 08 to 11.

    It is the path itself if there is such a file, or no range. Raises DataError for a range that
    goes backwards or has more than MAX_SHARDS paths.
    """
    if path.exists() or not _RANGE.search(str(path)):
        return [path]
    names = [str(path)]
    while found := _RANGE.search(names[0]):
        first, last = int(found[1]), int(found[2])
        if not first <= last or (last - first + 1) * len(names) > MAX_SHARDS:
            raise DataError(
                f"{found[0]} in {path} is no range of at most {MAX_SHARDS:,} shards, expected for "
                "example {000..010}"
            )
        width = len(found[1])
        names = [
            _RANGE.sub(f"{number:0{width}}", name, count=1)
            for name in names
            for number in range(first, last + 1)
        ]
    return list(map(Path, names))


def find_shards(path: Path) -> Shards | None:
    """Return the shards of a range or a folder, None for other sources.

    Raises DataError for a damaged ``state.json`` or ``dataset_dict.json``.
    """
    paths = expand_range(path)
    if paths != [path]:
        common = Path(os.path.commonpath([one.parent for one in paths]))
        return Shards(common, [(one, _split_in_name(one)) for one in paths], [])
    if not path.is_dir():
        return None
    if (path / "dataset_dict.json").is_file():
        splits = _strings(path / "dataset_dict.json", lambda content: content["splits"])
        parts = [(split, _of_state(path / split)) for split in splits]
        return Shards(path, [(one, split) for split, files in parts for one in files], [])
    if (path / "state.json").is_file():
        return Shards(path, [(one, None) for one in _of_state(path)], [])
    return _in_folder(path)


def read_shards(shards: Shards, reading: Reading) -> Iterator[Item]:
    """Yield the items of all shards; a shard that cannot be read is recorded.

    The name of the shard begins the ids of samples and the ids that are places of rows.
    """
    for path in shards.others:
        reading.problems.add(NOT_USED, path.relative_to(shards.root))
    described = []
    sizes = [path.stat().st_size if path.is_file() else 0 for path, _ in shards.paths]
    counted = Expected()
    for number, (path, split) in enumerate(shards.paths):
        name = path.relative_to(shards.root).as_posix()
        name = name[: -len(container_ending(path) or path.suffix)]
        own = replace(reading, row_prefix=f"{reading.row_prefix}{name}/", sources=[])
        own.expected = None if reading.expected is None else counted
        try:
            if not path.is_file():
                raise DataError(f"{path} does not exist")
            for item in read_table(path, own):
                if reading.expected is not None:  # in proportion to the bytes of the shards so far
                    share = sum(sizes[: number + 1]) / max(1, sum(sizes))
                    reading.expected.number = round(counted.number / max(share, 1e-9))
                yield item if item.split or split is None else replace(item, split=split)
        except (DataError, OSError) as error:
            reading.problems.add(UNREADABLE, error)
        described += own.sources
    if described:
        several = f" and {len(described) - 1:,} more shards" if len(described) > 1 else ""
        reading.sources.append(f"{described[0]}{several}")


def _in_folder(root: Path) -> Shards | None:
    """Return the shards below a folder, None if it is no folder of shards."""
    files: list[Path] = []
    tree, waiting = Tree(root, Problems()), [root]
    while waiting:
        listing = tree.listing(waiting.pop())
        if any(map(is_picture_name, listing.files)) or not _TABLES.isdisjoint(listing.files):
            return None
        files += (listing.path / name for name in listing.files)
        if len(files) > MAX_SHARDS:
            return None
        waiting += (listing.path / name for name in reversed(listing.folders))
    tars = [path for path in files if container_ending(path) in TAR_ENDINGS]
    stems = {path.parent / path.name.partition(".")[0] for path in tars}
    tables = [path for path in files if container_ending(path) and path not in tars]
    shards = tars or [path for path in tables if not path.name.startswith("cache-")]
    if not shards:
        return None
    used = set(shards)
    others = [
        path
        for path in files
        if path not in used
        and not _NOTES.match(path.name)
        and path.parent / path.name.partition(".")[0] not in stems
    ]
    return Shards(root, [(path, _split_of(path, root)) for path in shards], others)


def _of_state(folder: Path) -> list[Path]:
    """Return the Arrow files that the ``state.json`` of ``datasets`` names."""
    names = _strings(
        folder / "state.json", lambda content: [one["filename"] for one in content["_data_files"]]
    )
    return [folder / name for name in names]


def _strings(path: Path, select: Any) -> list[str]:
    """Return names of files from a small JSON file. Raises DataError."""
    try:
        if path.stat().st_size > MAX_STATE_BYTES:
            raise ValueError(f"more than {MAX_STATE_BYTES:,} bytes")
        names = select(json.loads(path.read_bytes()))
        if not isinstance(names, list) or not all(map(_is_plain_name, names)):
            raise ValueError("names of files are not plain names")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is not of a folder of datasets.save_to_disk ({error!r}): save it again"
        ) from None
    return names


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _split_of(path: Path, root: Path) -> str | None:
    """Return the split in the name of a shard, else in those of its folders below ``root``."""
    folders = reversed(path.parent.relative_to(root).parts)
    return _split_in_name(path) or next((name for name in folders if role_of(name)), None)


def _split_in_name(path: Path) -> str | None:
    """Return the split in the name of a shard: "train" of ``train-00000-of-00002.parquet``.

    It is the last one, because the name of the data set is before it: ``test-set-train.arrow``.
    """
    words = re.split(r"[-_.\s]+", path.name.partition(".")[0])
    return next((word for word in reversed(words) if role_of(word)), None)

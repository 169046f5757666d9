"""Shards of a data set for several processes, and the digest of the files that it is read from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.data.readers.shards import expand_range
from xmodal.data.readers.tables import TEXT_FORMATS, format_ending
from xmodal.data.readers.walk import Tree
from xmodal.errors import ConfigError, DataError

MAX_SHARDS = 100_000


@dataclass(frozen=True, order=True)
class Shard:
    """Part ``number``, from 1, of ``count`` parts of a data set."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard given as "3/16". Raises ConfigError."""
        number, _, count = text.partition("/")
        if number.isdecimal() and count.isdecimal():
            if 1 <= int(number) <= int(count) <= MAX_SHARDS:
                return cls(int(number), int(count))
        raise ConfigError(
            f"the shard is {text!r}, expected I/N with I from 1 to N, for example 3/16"
        )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, item: Item, root: Path) -> bool:
        """Return whether an item is in the shard, which depends on its :func:`group_key` alone."""
        return self.count == 1 or self.has_key(group_key(item, root))

    def has_key(self, key: str) -> bool:
        """Return whether the shard has the items of this key."""
        return shard_number(key, self.count) == self.number

    def select(self, items: Iterable[Item], root: Path) -> Iterator[Item]:
        """Yield the items of the shard."""
        return (item for item in items if self.has(item, root))


def shard_number(key: str, count: int) -> int:
    """Return the number, from 1 to ``count``, of the shard that has the items of a key."""
    if count == 1:
        return 1
    hashed = hashlib.blake2b(key.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(hashed, "little") % count + 1


def group_key(item: Item, root: Path) -> str:
    """Return the group of an item, else the path of its first picture, else its id.

    Items of one picture have equal keys. Paths are relative to ``root``, so that machines that have
    the data in different folders make equal shards.
    """
    if item.group is not None:
        return item.group
    first = item.images[0] if item.images else None
    if isinstance(first, Path):
        return (first.relative_to(root) if first.is_relative_to(root) else first).as_posix()
    return item.id


def listing_digest(paths: Iterable[Path], options: Mapping[str, Any]) -> str:
    """Return a hash of the files below ``paths`` and of the options that they are read with.

    Of a table of text, the hash covers the content; of other files, the name, the size and the time
    of the last modification. Names are relative to their path. Pictures outside of ``paths`` that a
    table names are not covered. Raises DataError for a path that does not exist.
    """
    hashed = hashlib.blake2b(digest_size=16)
    set_options = {name: str(value) for name, value in options.items() if value is not None}
    hashed.update(json.dumps(set_options, sort_keys=True).encode())
    for path in paths:
        for one in expand_range(path):
            try:
                for file, name in _files(one):
                    hashed.update(f"{name}\0{_state(file)}\0".encode(errors="surrogatepass"))
            except FileNotFoundError:
                raise DataError(f"{one} does not exist, expected a folder or a table") from None
    return hashed.hexdigest()


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of a path in order, each with its name below the path."""
    if not path.is_dir():
        yield path, path.name
        return
    tree, waiting = Tree(path, Problems()), [path]
    while waiting:
        listing = tree.listing(waiting.pop())
        for name in listing.files:
            yield listing.path / name, tree.relative(listing.path, name)
        waiting += (listing.path / name for name in reversed(listing.folders))


def _state(file: Path) -> str:
    """Return a text that changes with the file."""
    if format_ending(file) in TEXT_FORMATS:
        with open(file, "rb") as content:
            return hashlib.file_digest(content, "blake2b").hexdigest()
    stat = file.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"

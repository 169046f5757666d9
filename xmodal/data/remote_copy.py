"""Local copies of remote tables and archives, from which the readers read.

Of a remote folder the names, sizes and times of all files are copied, and the content of those that
are no pictures. The pictures themselves stay where they are, and so do those that a table names:
they are read by their address when they are decoded.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from xmodal.data.items import ImageSource, Item
from xmodal.data.packed.names import container_ending
from xmodal.data.picture_formats import is_picture_name
from xmodal.data.problems import Problems
from xmodal.data.remote import (
    address,
    copy_remote,
    file_info,
    is_remote,
    list_remote,
)
from xmodal.errors import DataError

_copies: dict[Path, Path] = {}
"""Local copies by their remote paths."""
_lock = Lock()


@dataclass(frozen=True)
class LocalCopy:
    """A folder or table, and its copy.

    ``path``: what the readers read; ``remote``: what it is a copy of, None if it is no copy;
    ``root``: folder of the copies.
    """

    path: Path
    remote: Path | None = None
    root: Path | None = None

    @property
    def folder(self) -> Path | None:
        """Folder of the pictures that a remote table names; None for others."""
        return self.remote.parent if self.remote is not None and self.path.is_file() else None

    def restored(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items with remote paths in place of those of copies."""
        for item in items:
            yield replace(item, images=tuple(map(self._original, item.images)))

    def _original(self, image: ImageSource) -> ImageSource:
        if self.root is None or not isinstance(image, Path) or not image.is_relative_to(self.root):
            return image
        return image.relative_to(self.root)


@contextmanager
def local_copy(path: Path, problems: Problems) -> Iterator[LocalCopy]:
    """Context with a copy of a remote folder or table, or with a local path as it is.

    Names that cannot be those of files are recorded. Raises DataError if there is no such folder or
    table, or no room for the copy, and RemoteFailure.
    """
    if not is_remote(path):
        yield LocalCopy(path)
        return
    with tempfile.TemporaryDirectory(prefix="xmodal-") as name:
        root = Path(os.path.realpath(name))
        found = file_info(path)
        files = [(path, found)] if found.is_file else list_remote(path, recursive=True)
        if not files:
            raise DataError(f"{address(path)} does not exist, expected a folder or a table")
        used = [(one, info) for one, info in files if _is_plain(one, info, path, problems)]
        _check_room(path, root, sum(i.size for one, i in used if not is_picture_name(one.name)))
        copied = [one for one, info in used if _copy(one, info, root)]
        with _lock:
            _copies.update((one, root / one) for one in copied)
        try:
            yield LocalCopy(root / path, path, root)
        finally:
            with _lock:
                for one in copied:
                    _copies.pop(one, None)


def copied_container(path: str | Path) -> Path | None:
    """Return the place in a local copy of a picture in a remote archive or table, None for others.

    An archive without a copy is copied; the copy is removed when the process ends.
    """
    path = Path(path)
    container = next((one for one in path.parents if container_ending(one) is not None), None)
    if container is None:
        return None
    with _lock:
        if container not in _copies:
            root = Path(_process_folder().name)
            info = file_info(container)
            if not info.is_file:
                return None
            _check_room(container, root, info.size)
            _copy(container, info, root)
            _copies[container] = root / container
        return _copies[container] / path.relative_to(container)


@cache
def _process_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="xmodal-")


def _is_plain(path: Path, info: Any, source: Path, problems: Problems) -> bool:
    """Return whether a remote name is that of a file below the source, else record it."""
    inside = info.path.split("/")
    if {"", ".", ".."}.isdisjoint(inside) and "\0" not in info.path:
        return True
    problems.add("name that is no path, left out", info.path)
    return False


def _check_room(path: Path, root: Path, size: int) -> None:
    free = shutil.disk_usage(root).free
    if size > free:
        raise DataError(
            f"the tables and archives of {address(path)} have {size:,} bytes, {root.parent} has "
            f"{free:,}: set TMPDIR to a larger disk"
        )


def _copy(path: Path, info: Any, root: Path) -> bool:
    """Copy a file; of a picture, only the size and the time. Return whether it has its content."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    has_content = not is_picture_name(path.name)
    if has_content:
        copy_remote(path, target)
    else:
        with open(target, "wb") as file:
            file.truncate(info.size)
    if info.mtime_ns is not None:
        os.utime(target, ns=(info.mtime_ns, info.mtime_ns))
    return has_content

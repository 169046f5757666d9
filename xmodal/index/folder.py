"""The folder of a local index: its files, its lock, and what identifies its state.

The index is the commit file and the files that it names (see :mod:`xmodal.index.segments.commit`),
or a Parquet file of an earlier version (see :mod:`xmodal.index.former_format`), which the next save
replaces.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xmodal.errors import IndexFailure
from xmodal.index.segments.commit import FILE
from xmodal.index.segments.deletions import DELETED
from xmodal.index.segments.segment import PREFIX
from xmodal.writing import NEW, in_use

LOCK, UNFINISHED = "lock", "saving-"
FORMER_FILE, FORMER_PREFIXES = "documents.parquet", ("vectors-", "words-")
"""File of an earlier version, and beginnings of the names of the files beside it."""
MODEL_FOLDER, MODEL_RECORD = "model", "model.json"
"""Encoder that was fitted for an index, and record of its encoder's path; see
:mod:`xmodal.encoders.index_model`."""
FileIdentity = tuple[str, int, int, int]


def is_index(folder: Path) -> bool:
    """Whether a folder contains a local index, of this or of an earlier version."""
    return (folder / FILE).is_file() or (folder / FORMER_FILE).is_file()


def identity(folder: Path) -> FileIdentity | None:
    """Return what identifies the saved state of an index, or None if there is none.

    It is the name, inode, modification time in ns and size of the file that commits the state.
    """
    for name in (FILE, FORMER_FILE):
        with suppress(FileNotFoundError, NotADirectoryError):
            stat = (folder / name).stat()
            return name, stat.st_ino, stat.st_mtime_ns, stat.st_size
    return None


def check_folder(path: Path) -> None:
    """Raise IndexFailure for a file, and for a folder with other files than those of an index."""
    if is_index(path):
        return
    if path.is_file() or (path.is_dir() and not all(map(_is_left_by_save, path.iterdir()))):
        raise IndexFailure(
            f"{path} exists and is not an index (it has no {FILE}): choose a new folder"
        )


@contextmanager
def lock_index(folder: Path) -> Iterator[None]:
    """Hold the lock of an index, so that no other process saves it meanwhile.

    ``save`` holds it by itself. Raises InUse if another process holds it, IndexFailure for a folder
    that is not an index and for a lock that is a symbolic link, OSError if it cannot be written.
    """
    from filelock import FileLock, Timeout  # required by a save only

    check_folder(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(os.path.realpath(folder), LOCK)
    if path.is_symlink():
        raise IndexFailure(f"{path} is a symbolic link, expected a file: remove it")
    lock = FileLock(path, timeout=0, is_singleton=True)  # nested ones of a thread are allowed
    try:
        lock.acquire()
    except Timeout:
        raise in_use(folder) from None
    try:
        yield
    except BaseException:
        if is_new and os.listdir(folder) == [LOCK]:
            path.unlink()
            folder.rmdir()
        raise
    finally:
        lock.release()


def remove_unused(folder: Path, used: Collection[str], *, former: bool) -> None:
    """Remove files of indexes that are not among ``used``: killed or earlier saves left them.

    ``former``: whether files of earlier versions are removed, too.
    """
    prefixes = (UNFINISHED, PREFIX, DELETED, *(FORMER_PREFIXES if former else ()))
    for path in folder.iterdir():
        is_of_index = path.name.startswith(prefixes) or (former and path.name == FORMER_FILE)
        if is_of_index and path.name not in used:
            # Windows does not remove a file that is mapped; a later save does.
            with suppress(PermissionError):
                path.unlink(missing_ok=True)


def disk_usage(folder: Path) -> dict[str, int]:
    """Return the bytes of each file and subfolder of an index."""
    return {
        path.name: sum(one.stat().st_size for one in _files(path))
        for path in sorted(folder.iterdir())
    }


def _is_left_by_save(path: Path) -> bool:
    """Return whether a killed first indexing may have left this file or folder."""
    if path.name in (MODEL_FOLDER, MODEL_RECORD, LOCK):
        return True
    begins = (UNFINISHED, PREFIX, DELETED, *FORMER_PREFIXES)
    return path.name.startswith((*begins, f"{MODEL_RECORD}{NEW}", f".{MODEL_FOLDER}."))


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or all files below a folder."""
    yield from (one for one in path.rglob("*") if one.is_file()) if path.is_dir() else (path,)

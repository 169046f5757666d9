"""Writing: files and folders that are replaced at once when they are complete, and their locks."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from xmodal import operating_system
from xmodal.errors import InUse
from xmodal.operating_system import OPEN_FLAGS, WITHOUT_WAITING

NEW = ".new"
"""Suffix of a file or folder that is being written."""
OLD = ".old"
"""Suffix of a folder that is being replaced, where two folders cannot be exchanged at once."""
LOCK = ".lock"
"""Name of the lock file of a folder."""


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, in UTF-8."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as file:
        file.write(content)


def check_target(path: Path) -> None:
    """Make the folder of a file that will be written; raise OSError if it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.is_file() or not path.exists():  # else it is a device
        new = path.with_name(path.name + NEW)
        descriptor = _create(new, path)
        os.close(descriptor)
        new.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Context with a file that replaces ``path`` at the end of the block.

    After an exception, a kill or a power failure at any moment ``path`` is the old file or the new
    one. Its mode follows the umask. A symbolic link is replaced, not followed; a device or pipe is
    written directly. Raises InUse if another process writes the file, and OSError with its name
    instead of any exception that follows from a failed write, such as a RuntimeError of torch.
    """
    if path.exists() and not path.is_file():  # a folder raises
        with open(path, "wb") as device:
            yield device
        return
    new = path.with_name(path.name + NEW)
    raw = _Recording(_create(new, path), "w+")
    try:
        # numpy writes a BufferedWriter by its descriptor, and loses the reason of a failure.
        while_open = operating_system.REMOVES_OPEN_FILES  # so that it is locked until then
        with (
            _placing(new, path, not while_open),
            io.BufferedRandom(raw) as file,
            _placing(new, path, while_open),
        ):
            yield file
            file.flush()
            os.fsync(file.fileno())
    except Exception as error:
        failed = raw.error
        if failed is None and isinstance(error, OSError) and error.filename is None:
            failed = error
        if failed is None or failed.errno is None:
            raise
        raise _named(failed, path) from error


@contextmanager
def _placing(new: Path, path: Path, enabled: bool) -> Iterator[None]:
    """Replace ``path`` by ``new`` at the end of the block; remove ``new`` after an exception."""
    try:
        yield
        if enabled:
            operating_system.replace(new, path)
    except BaseException:
        if enabled:
            new.unlink(missing_ok=True)
        raise


class _Recording(io.FileIO):
    """A file that keeps the error of a failed write; libraries replace it by errors of theirs."""

    error: OSError | None = None

    def write(self, content: Any, /) -> int:
        """Write bytes; return their number."""
        try:
            return super().write(content)
        except OSError as error:
            self.error = error
            raise


def _create(new: Path, path: Path) -> int:
    """Return the descriptor of a new, locked file, which will replace ``path``.

    A file that a killed process left is removed. Raises InUse if a running process writes it.
    """
    while True:
        try:
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN_FLAGS, 0o666)
            is_ours = True
        except FileExistsError:
            if new.is_symlink():
                new.unlink(missing_ok=True)
                continue
            if not operating_system.REMOVES_OPEN_FILES:
                _remove_unused(new, path)
                continue
            try:
                descriptor = os.open(new, os.O_RDONLY | WITHOUT_WAITING | OPEN_FLAGS)
            except FileNotFoundError:
                continue
            is_ours = False
        except OSError as error:
            raise _named(error, path) from None
        try:
            if not operating_system.try_lock(descriptor):
                raise in_use(path)
            is_current = _is_at(descriptor, new)
            if is_current and not is_ours:
                new.unlink()
        except BaseException:
            os.close(descriptor)
            raise
        if is_current and is_ours:
            return descriptor
        os.close(descriptor)


def _named(error: OSError, path: Path) -> OSError:
    """Return the error with the name of the file that was to be written."""
    assert error.errno is not None
    return OSError(error.errno, os.strerror(error.errno), str(path))


def _remove_unused(new: Path, path: Path) -> None:
    """Remove a file that a killed process left; raise InUse if it is open."""
    try:
        new.unlink(missing_ok=True)
    except PermissionError:
        raise in_use(path) from None


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still is the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


# ---- folders ---------------------------------------------------------------------------------


_held: set[tuple[Path, int]] = set()
"""Lock files that this process holds, with the threads that hold them."""


@contextmanager
def lock_folder(folder: Path, *, shown: Path | None = None) -> Iterator[None]:
    """Make a folder if necessary and hold its lock; nested locks of one thread are allowed.

    The lock file is removed at the end; the operating system releases that of a killed process. If
    the block raises, a folder that was made here and is still empty is removed. ``shown``: the
    folder that ``folder`` may replace, see :func:`replace_folder`, and that messages name.

    Raises InUse if another process holds the lock, and OSError.
    """
    named = shown or folder
    path = Path(os.path.realpath(folder), LOCK)
    key = path, threading.get_ident()
    if key in _held:
        yield
        return
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _create(path, named)
    _held.add(key)
    try:
        yield
    except BaseException:
        _unlock(descriptor, path, named / LOCK)
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise
    else:
        _unlock(descriptor, path, named / LOCK)
    finally:
        _held.discard(key)


def _unlock(descriptor: int, *paths: Path) -> None:
    """Remove a lock file, which is at one of the paths, and release it."""
    found = [path for path in paths if _is_at(descriptor, path)]
    if not operating_system.REMOVES_OPEN_FILES:
        os.close(descriptor)
    for path in found:
        with suppress(OSError):
            path.unlink()
    if operating_system.REMOVES_OPEN_FILES:
        os.close(descriptor)


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def in_use(path: Path) -> InUse:
    """Return the error of a file or folder that another process writes."""
    return InUse(f"another process writes {path}: wait until it ends, or name another one")


def sibling(folder: Path, suffix: str) -> Path:
    """Return the hidden path beside a folder, or beside the target of a link, with a suffix."""
    target = Path(os.path.realpath(folder))
    return target.with_name(f".{target.name}{suffix}")


def replace_folder(new: Path, folder: Path, is_last: Callable[[str], bool]) -> None:
    """Let the folder ``new`` take the place of ``folder``; what was there is then in ``new``.

    ``new`` is beside ``folder`` or in it. Two folders are exchanged at once on Linux, by two
    renames elsewhere. A mount point cannot be renamed: its files are replaced one by one, at the
    end those for which ``is_last`` is true.
    """
    target = Path(os.path.realpath(folder))
    if new.parent == target.parent:
        if not target.exists():
            os.replace(new, target)
            return
        if operating_system.exchange(new, target):
            return
        old = sibling(folder, OLD)
        with suppress(OSError):
            os.rename(target, old)
            try:
                os.rename(new, target)
            except BaseException:
                os.rename(old, target)
                raise
            os.rename(old, new)
            return
    kept = {LOCK, new.name}
    for name in sorted(_names(target) - kept, key=is_last, reverse=True):
        remove(target / name)
    for name in sorted(_names(new) - kept, key=is_last):
        shutil.move(new / name, target / name)


def restore_folder(folder: Path) -> None:
    """Undo the first of two renames of :func:`replace_folder`, if the process was killed then."""
    old = sibling(folder, OLD)
    if old.is_dir() and not folder.exists():
        os.rename(old, os.path.realpath(folder))


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

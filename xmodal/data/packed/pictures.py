"""Access to pictures by path: ordinary files, and pictures in containers.

Containers stay open in a small least-recently-used cache. Every function is safe for threads.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Protocol

from xmodal.data.packed.names import container_of, is_tar
from xmodal.data.remote import is_remote, read_remote
from xmodal.errors import DataError

MAX_PICTURE_BYTES = 256 * 2**20
"""Maximum size of the file of a picture."""
MAX_OPEN = 8
"""Containers that stay open."""


class Container(Protocol):
    """An open file that holds pictures; its methods are safe for threads."""

    def read(self, place: tuple[str, ...], max_bytes: int) -> bytes | None:
        """Return the bytes of a picture, None if there is no such picture.

        ``place``: parts of the virtual path after the container. Raises OSError for a picture of
        more than ``max_bytes``, and for damage.
        """


def open_picture(path: str | Path) -> io.BufferedReader | io.BytesIO:
    """Open the file of a picture, a packed picture, or a remote one, for reading.

    Raises RemoteFailure if a remote file system cannot be reached. Raises OSError as ``open``
    does, for a file that is not an ordinary one (a pipe, a device), and
    for more than MAX_PICTURE_BYTES.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if is_remote(path):
            return io.BytesIO(_read_remote(path))
        return io.BytesIO(_read_packed(Path(path)))
    except ValueError:  # a name with a zero byte
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not an ordinary file")
    if found.st_size > MAX_PICTURE_BYTES:
        raise too_large(found.st_size, MAX_PICTURE_BYTES)
    return open(path, "rb")


def read_picture(path: str | Path) -> bytes:
    """Return the bytes of a picture. Raises OSError like :func:`open_picture`."""
    with open_picture(path) as file:
        return file.read()


def is_picture_file(path: str | Path) -> bool:
    """Return whether a path is that of a file, or of a packed picture in an existing container.

    The content of the container is not searched.
    """
    return os.path.isfile(path) or container_of(path) is not None


def picture_stat(path: str | Path) -> os.stat_result:
    """Return the status of a file, or that of the container of a packed picture. Raises OSError."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        container = container_of(path)
        if container is None:
            raise
        return os.stat(container)


def too_large(size: int, max_bytes: int) -> OSError:
    """Return the error for a picture of too many bytes."""
    return OSError(f"{size:,} bytes, expected at most {max_bytes:,}")


def _read_remote(path: str | Path) -> bytes:
    from xmodal.data.remote_copy import copied_container  # imports this package

    packed = copied_container(path)
    return read_remote(path, MAX_PICTURE_BYTES) if packed is None else _read_packed(packed)


def _read_packed(path: Path) -> bytes:
    file = container_of(path)
    if file is not None:
        data = _opened(file).read(path.parts[len(file.parts) :], MAX_PICTURE_BYTES)
        if data is not None:
            return data
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


class _Slot:
    """One container: opened by the first thread that needs it, while the others wait."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._container: Container | None = None
        self._error: str | None = None

    def get(self, path: Path) -> Container:
        """Return the open container.

        A damaged one, and one without room to unpack it, is opened once and raises OSError each
        time.
        """
        with self._lock:
            if self._error is not None:
                raise OSError(self._error)
            if self._container is None:
                try:
                    self._container = _open_container(path)
                except DataError as error:
                    self._error = str(error)
                    raise OSError(self._error) from None
                except OSError as error:
                    if error.errno == errno.ENOSPC:
                        self._error = f"{path} cannot be unpacked: the disk of TMPDIR is full"
                        raise OSError(self._error) from None
                    raise
            return self._container


_slots: OrderedDict[tuple[str, int, int, int, int], _Slot] = OrderedDict()
_slots_lock = Lock()


def _opened(path: Path) -> Container:
    """Return the open container of a path; a file that was changed or replaced is opened again.

    Containers that left the cache are closed when no thread uses them any more.
    """
    found = os.stat(path)
    name = os.path.abspath(path)
    key = (name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    with _slots_lock:
        slot = _slots.setdefault(key, _Slot())
        _slots.move_to_end(key)
        while len(_slots) > MAX_OPEN:
            _slots.popitem(last=False)
    return slot.get(path)


def _open_container(path: Path) -> Container:
    from xmodal.data.packed.tar import TarContainer

    if is_tar(path):
        return TarContainer(path)
    from xmodal.data.packed.tables import TableContainer  # imports pyarrow

    return TableContainer(path)

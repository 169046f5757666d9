"""Differences of operating systems: locks, open files, signals of limits, addresses of files.

Modules that are missing on Windows (``fcntl``, ``resource``) are imported here alone, and functions
of ``os`` that are missing there are called here alone: tests/project/test_systems.py checks that.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

CLOSED_AT_EXEC = getattr(os, "O_CLOEXEC", 0)
OPEN_FLAGS = CLOSED_AT_EXEC | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
"""Flags of ``os.open`` for files that are written: bytes, no links, not for child processes."""
WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0)
"""Flag of ``os.open``: opening a pipe does not wait for its other end."""
REMOVES_OPEN_FILES = os.name == "posix"
"""Whether an open file can be removed and replaced; on Windows it cannot."""
REPLACE_ATTEMPTS, REPLACE_PAUSE = 20, 0.05
"""Attempts to replace a file that another process has open, and seconds between them."""
UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""Errors of file systems that cannot make the names of a folder durable."""
MANY_FILES = 2**20


def try_lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; return False if another process holds the lock.

    No effect on Windows, where nobody can remove or replace the open file, and on file systems
    without locks.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def replace(new: Path, path: Path) -> None:
    """Let the file ``new`` take the place of ``path``.

    Where open files cannot be replaced, this waits up to a second for a process that reads the old
    one. Raises OSError.
    """
    for _ in range(0 if REMOVES_OPEN_FILES else REPLACE_ATTEMPTS):
        with suppress(PermissionError):
            os.replace(new, path)
            return
        time.sleep(REPLACE_PAUSE)
    os.replace(new, path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; no effect where folders cannot be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise
    finally:
        os.close(descriptor)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths at once; return whether the system and the file system can do that."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    at_working_folder, both = -100, 2
    names = os.fsencode(first), os.fsencode(second)
    return rename is not None and (
        rename(at_working_folder, names[0], at_working_folder, names[1], both) == 0
    )


def read_at_random(mapped: mmap.mmap, start: int, size: int) -> None:
    """Tell the system that few pages of a mapped file are read, far apart.

    ``start``: a multiple of the page size, in bytes.
    """
    if hasattr(mmap, "MADV_RANDOM") and size > 0:
        mapped.madvise(mmap.MADV_RANDOM, start, size)


def reserve(descriptor: int, size: int) -> None:
    """Reserve bytes on the disk for a file, on Linux alone. Raises OSError if there is no space."""
    allocate: Any = getattr(os, "posix_fallocate", None)
    if size and allocate:
        allocate(descriptor, 0, size)


def processors() -> int:
    """Return the number of processors that this process may use."""
    affinity: Any = getattr(os, "sched_getaffinity", None)  # Linux alone
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def max_open_files() -> int:
    """Return how many files and sockets this process may have open; 2**20 without a limit."""
    try:
        import resource
    except ImportError:
        return MANY_FILES
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MANY_FILES if soft == resource.RLIM_INFINITY else soft


def has_memory_limit() -> bool:
    """Return whether the address space of this process is limited."""
    try:
        import resource
    except ImportError:
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def can_others_read(status: os.stat_result, shared: int) -> bool:
    """Return whether other users may read a file, by its permissions.

    ``shared``: permissions that are allowed for a file of another owner. False on Windows, whose
    access lists ``stat`` does not show.
    """
    user: Any = getattr(os, "geteuid", None)
    if user is None:
        return False
    allowed = 0o700 if status.st_uid == user() else 0o700 | shared
    return bool(status.st_mode & 0o777 & ~allowed)


def owned_by_this_user(status: os.stat_result) -> bool:
    """Return whether a file belongs to the user of this process or to the administrator.

    True on Windows, whose owners ``stat`` does not show.
    """
    user: Any = getattr(os, "geteuid", None)
    return user is None or status.st_uid in (user(), 0)


def is_root() -> bool:
    """Return whether this process has the rights of root."""
    user: Any = getattr(os, "geteuid", None)
    return user is not None and user() == 0


def file_path(address: str) -> str:
    """Return the path that a ``file://`` address names; another text as it is.

    The path may be relative (``file://my.index``) and is not decoded unless the address has the
    three slashes of a complete one. ``C:\\x`` is a path.
    """
    if not address.startswith("file://"):
        return address
    if address[7:8] != "/":
        return address[7:]
    return url2pathname(urlsplit(address).path) if os.name == "nt" else address[7:]

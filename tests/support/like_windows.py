"""The parts of Windows that matter to files, simulated on Linux.

There are no ``fcntl`` and ``resource``, no users and no advice for memory. A folder cannot be
opened; a file cannot be removed, replaced or renamed while this process has it open or mapped.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock  # noqa: F401, imported before the modules of the system are hidden
import pytest

from xmodal import operating_system

ABSENT = ("geteuid", "getuid", "sched_getaffinity", "register_at_fork")
FORBIDDEN_NAMES = frozenset('<>:"|?*')


def used_files() -> set[str]:
    """Return the paths of the files that this process has open or mapped."""
    opened = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            opened.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # that of the listing
            continue
    maps = Path("/proc/self/maps").read_text("utf-8")
    return opened | {line.split(maxsplit=5)[5] for line in maps.splitlines() if "/" in line}


def _refused(path: Any) -> bool:
    """Whether a file is in use; for a folder, whether a file in it is."""
    name = os.path.realpath(os.path.dirname(path)) + os.sep + os.path.basename(path)
    return any(one == name or one.startswith(name + os.sep) for one in used_files())


def _checking(function: Callable[..., Any], paths: int) -> Callable[..., Any]:
    """Return a function of ``os`` that raises PermissionError for a file in use."""

    def checked(*arguments: Any, **options: Any) -> Any:
        by_path = not any(value is not None for value in options.values())
        for path in arguments[:paths] if by_path else ():
            # filelock has calls of its own for Windows.
            if not os.path.basename(path).startswith(".filelock-") and _refused(os.fspath(path)):
                raise PermissionError(errno.EACCES, "used by another process", str(path))
        return function(*arguments, **options)

    return checked


def _open(original: Callable[..., int]) -> Callable[..., int]:
    def checked(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if options.get("dir_fd") is None and os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        if FORBIDDEN_NAMES & set(os.path.basename(os.fspath(path))):
            raise OSError(errno.EINVAL, "Invalid argument", str(path))
        return original(path, flags, *arguments, **options)

    return checked


def like_windows(patch: pytest.MonkeyPatch) -> None:
    """Let ``os`` and the modules of the standard library act as on Windows."""
    for name in ("fcntl", "resource"):
        patch.setitem(sys.modules, name, None)
    for name in ABSENT:
        patch.delattr(os, name)
    patch.delattr(mmap, "MADV_RANDOM")
    patch.setattr(operating_system, "REMOVES_OPEN_FILES", False)
    patch.setattr(operating_system, "REPLACE_PAUSE", 0.0)
    patch.setattr(operating_system, "exchange", lambda first, second: False)
    patch.setattr(os, "open", _open(os.open))
    for name, paths in (("unlink", 1), ("remove", 1), ("replace", 2), ("rename", 2)):
        patch.setattr(os, name, _checking(getattr(os, name), paths))

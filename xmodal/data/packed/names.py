"""Virtual paths of packed pictures."""

from __future__ import annotations

import os
import stat
from pathlib import Path

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")
TABLE_ENDINGS = (".parquet", ".arrow", ".feather")
ENDINGS = TAR_ENDINGS + TABLE_ENDINGS
"""Endings of containers, in lower case."""


def is_tar(path: str | Path) -> bool:
    """Return whether a path has the ending of a tar archive."""
    return os.path.basename(path).lower().endswith(TAR_ENDINGS)


class PackedName(str):
    """The virtual path of a picture that is known to be in its container."""

    __slots__ = ()


def container_ending(path: str | Path) -> str | None:
    """Return the ending of a container in lower case, with its leading dot; None for others."""
    name = os.path.basename(path).lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def container_of(path: str | Path) -> Path | None:
    """Return the file that contains the picture of a virtual path; None for other paths.

    The file exists; whether the picture is in it is not checked.
    """
    path = Path(path)
    for parent in path.parents:
        try:
            mode = os.stat(parent).st_mode
        except NotADirectoryError:
            continue
        except (OSError, ValueError):  # ValueError: a name with a zero byte
            return None
        is_container = stat.S_ISREG(mode) and container_ending(parent) is not None
        inside = path.parts[len(parent.parts) :]
        return parent if is_container and ".." not in inside else None
    return None

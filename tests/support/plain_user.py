"""Permissions in tests: root may read every file, other users may not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def plain_user() -> Iterator[None]:
    """Let the process be a user without special rights, if it is root's."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Yield a temporary folder that every user may read; pytest's are readable to one alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            for path in folder.rglob("*"):
                if not path.is_symlink():
                    path.chmod(0o755)

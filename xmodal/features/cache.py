"""The cache folder, and rows of numbers kept there under a hash of their source.

There is one SQLite file for each fingerprint of the network that computed the rows.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.errors import DataError

Array = npt.NDArray[Any]

TABLES = (
    "features (key BLOB PRIMARY KEY, value BLOB)",
    # A file with unchanged size and modification time is not read again for its hash.
    "files (path TEXT PRIMARY KEY, size INT, time INT, key BLOB)",
)


def default_cache() -> Path | None:
    """The folder for everything that xmodal keeps between runs: $XMODAL_CACHE, else the system's.

    On Linux that is ``xmodal`` in $XDG_CACHE_HOME or in ``~/.cache``. None for a user without a
    home folder, as in a container that runs under a bare user id.
    """
    chosen = os.environ.get("XMODAL_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path  # needed only here, and not when xmodal is imported

    try:
        folder = user_cache_path("xmodal", appauthor=False)
    except RuntimeError:  # there is no home folder; older versions return "~/.cache/xmodal"
        return None
    return folder if folder.is_absolute() else None


class FeatureCache:
    """Rows of one fingerprint in one SQLite file; processes can share it and can be killed."""

    def __init__(self, folder: Path, fingerprint: str, dim: int, dtype: str) -> None:
        self._dtype, self._dim = np.dtype(dtype), dim
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(folder, error) from None
        name = "".join(c if c.isalnum() or c in "-._" else "_" for c in fingerprint)
        self._db = sqlite3.connect(folder / f"{name}.sqlite", timeout=60)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            for table in TABLES:
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        except sqlite3.DatabaseError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        """The stored rows, by key; other keys are left out."""
        found: dict[bytes, Array] = {}
        unique = list(dict.fromkeys(keys))
        size = self._dim * self._dtype.itemsize
        for start in range(0, len(unique), 500):
            part = unique[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = self._db.execute(f"SELECT key, value FROM features WHERE key IN ({marks})", part)
            found |= {k: np.frombuffer(v, self._dtype) for k, v in rows if len(v) == size}
        return found

    def put(self, keys: Sequence[bytes], rows: Array) -> None:
        """Store one row for each key; durable when this returns."""
        values = [(k, v.tobytes()) for k, v in zip(keys, rows.astype(self._dtype), strict=True)]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", values)

    def file_keys(self, paths: Sequence[Path]) -> list[bytes | None]:
        """Content hash of each file; None for one that cannot be read."""
        known = {
            path: (size, time, key)
            for path, size, time, key in self._db.execute("SELECT path, size, time, key FROM files")
        }
        keys: list[bytes | None] = []
        new = []
        for path in paths:
            try:
                stat = path.stat()
                state = (stat.st_size, stat.st_mtime_ns)
                name = str(path.resolve())
                seen = known.get(name)
                if seen is None or seen[:2] != state:
                    seen = (*state, content_hash(path.read_bytes()))
                    new.append((name, *seen))
                keys.append(seen[2])
            except (OSError, ValueError):  # a name with a null byte is a ValueError
                keys.append(None)
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", new)
        return keys


def content_hash(data: bytes) -> bytes:
    """Key of a row: 16 bytes, a hash of ``data``."""
    return hashlib.blake2b(data, digest_size=16).digest()


@contextmanager
def open_cache(
    cache: Path | None, fingerprint: str, dim: int, dtype: str
) -> Iterator[FeatureCache | None]:
    """Context with the cache, or with None. Raises DataError if the file is or becomes unusable."""
    if cache is None:
        yield None
        return
    try:
        with closing(FeatureCache(cache, fingerprint, dim, dtype)) as store:
            yield store
    except sqlite3.DatabaseError as error:
        raise _unusable(cache, error) from None


def _unusable(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"the feature cache in {folder} cannot be used ({error}): remove it, or name another with "
        "--cache or XMODAL_CACHE"
    )

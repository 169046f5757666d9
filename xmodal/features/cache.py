"""Feature cache: rows of numbers, stored on disk under a hash of their source.

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

from xmodal.data.packed import read_picture
from xmodal.data.picture_files import picture_stamp
from xmodal.errors import DataError

Array = npt.NDArray[Any]

TABLES = (
    "features (key BLOB PRIMARY KEY, value BLOB)",
    # The content hash of a file, by the hash of its stamp.
    "stamps (key BLOB PRIMARY KEY, value BLOB)",
)


def default_cache() -> Path | None:
    """Return the cache folder: $XMODAL_CACHE, else ``xmodal`` in the cache folder of the system.

    On Linux the latter is $XDG_CACHE_HOME or ``~/.cache``. None for a user without a home folder,
    as in a container that runs under a user id without an account.
    """
    configured = os.environ.get("XMODAL_CACHE")
    if configured:
        return Path(configured)
    from platformdirs import user_cache_path  # keeps the import of xmodal fast

    try:
        folder = user_cache_path("xmodal", appauthor=False)
    except RuntimeError:  # no home folder; older versions of platformdirs return a relative path
        return None
    return folder if folder.is_absolute() else None


class FeatureCache:
    """Rows of one fingerprint in one SQLite file, safe for several processes and for kills.

    ``dim`` and ``dtype``: length and number format of a row.
    """

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
        """Return the stored rows by key; keys without a row are left out."""
        size = self._dim * self._dtype.itemsize
        found = self._select("features", keys)
        return {k: np.frombuffer(v, self._dtype) for k, v in found if len(v) == size}

    def put(self, keys: Sequence[bytes], rows: Array) -> None:
        """Store one row (dim,) for each key in one transaction."""
        values = [(k, v.tobytes()) for k, v in zip(keys, rows.astype(self._dtype), strict=True)]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", values)

    def file_keys(self, paths: Sequence[Path]) -> list[bytes | None]:
        """Return the content hash of each file; None for a file that cannot be read.

        A file is read again if its stamp has changed.
        """
        stamps = [picture_stamp(path) for path in paths]
        names = [None if x is None else content_hash(x.encode(errors="replace")) for x in stamps]
        known = dict(self._select("stamps", [name for name in names if name is not None]))
        new = {}
        for path, name in zip(paths, names, strict=True):
            if name is not None and name not in known:
                try:
                    known[name] = new[name] = content_hash(read_picture(path))
                except OSError:
                    continue
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO stamps VALUES (?, ?)", new.items())
        return [None if name is None else known.get(name) for name in names]

    def _select(self, table: str, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of the rows of a table that have one of the keys."""
        unique = list(dict.fromkeys(keys))
        for start in range(0, len(unique), 500):
            part = unique[start : start + 500]
            marks = ",".join("?" * len(part))
            yield from self._db.execute(
                f"SELECT key, value FROM {table} WHERE key IN ({marks})", part
            )


def content_hash(data: bytes) -> bytes:
    """Return the key of a row, a hash of 16 bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


@contextmanager
def open_cache(
    cache: Path | None, fingerprint: str, dim: int, dtype: str
) -> Iterator[FeatureCache | None]:
    """Context with the cache, or with None for no cache folder.

    Raises DataError if the file is damaged or cannot be used.
    """
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

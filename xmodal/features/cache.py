"""Feature cache: rows of numbers, stored on disk under a hash of their source.

There is one SQLite file for each fingerprint of the network that computed the rows. The bytes of a
row are followed by a checksum of row and key; a damaged row is computed again. Rows of earlier
versions have no checksum and are used as they are.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.checksums import row_checksum
from xmodal.data.packed import read_picture
from xmodal.errors import DataError

Array = npt.NDArray[Any]

TABLE = "features (key BLOB PRIMARY KEY, value BLOB)"
THREADS, QUEUE = 8, 4096
"""Pictures that are read and hashed at the same time, and those that wait for it."""
log = logging.getLogger(__name__)


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
        self._file = folder / f"{name}.sqlite"
        self._db = sqlite3.connect(self._file, timeout=60)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(f"CREATE TABLE IF NOT EXISTS {TABLE}")
        except sqlite3.DatabaseError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        """Return the stored rows by key; keys without a row, or with a damaged one, are left out.

        The number of damaged rows is logged.
        """
        out: dict[bytes, Array] = {}
        unique = list(dict.fromkeys(keys))
        damaged = 0
        for start in range(0, len(unique), 500):
            part = unique[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = self._db.execute(f"SELECT key, value FROM features WHERE key IN ({marks})", part)
            for key, value in rows:
                row = self._row(key, value)
                if row is None:
                    damaged += 1
                else:
                    out[key] = row
        if damaged:
            log.warning("%s: %s damaged features are computed again", self._file, f"{damaged:,}")
        return out

    def _row(self, key: object, value: object) -> Array | None:
        """Return the row of a stored value, None for a damaged one."""
        size = self._dim * self._dtype.itemsize
        if not isinstance(key, bytes) or not isinstance(value, bytes):
            return None
        row, checksum = value[:size], value[size:]
        if len(row) < size or checksum not in (b"", row_checksum(key, row)):
            return None
        return np.frombuffer(row, self._dtype)

    def put(self, keys: Sequence[bytes], rows: Array) -> None:
        """Store one row (dim,) for each key in one transaction."""
        contents = [row.tobytes() for row in rows.astype(self._dtype)]
        values = [(k, row + row_checksum(k, row)) for k, row in zip(keys, contents, strict=True)]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", values)


def file_keys(paths: Sequence[Path]) -> list[bytes | None]:
    """Return the content hash of each file; None for a file that cannot be read.

    Every file is read: another content under the same name, size and time has another key.
    """
    different = list(dict.fromkeys(paths))
    key_of: dict[Path, bytes | None] = {}
    with ThreadPoolExecutor(THREADS, thread_name_prefix="hash") as pool:
        for start in range(0, len(different), QUEUE):
            part = different[start : start + QUEUE]
            key_of.update(zip(part, pool.map(_file_key, part), strict=True))
    return [key_of[path] for path in paths]


def _file_key(path: Path) -> bytes | None:
    try:
        return content_hash(read_picture(path))
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return None


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

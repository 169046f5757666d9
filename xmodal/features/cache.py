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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.checksums import row_checksum
from xmodal.data.packed import read_picture
from xmodal.data.picture_files import picture_stamp
from xmodal.errors import DataError

Array = npt.NDArray[Any]

TABLES = (
    "features (key BLOB PRIMARY KEY, value BLOB)",
    # The content hash of a file, by the hash of its stamp.
    "stamps (key BLOB PRIMARY KEY, value BLOB)",
)
KEY_BYTES = 16
NOT_DAMAGE = {
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR),
}
"""Error codes that say nothing about the content of a file."""
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

    ``folder``: of the file. ``dim`` and ``dtype``: length and number format of a row.
    """

    def __init__(self, folder: Path, fingerprint: str, dim: int, dtype: str) -> None:
        self.folder = folder
        self._dtype, self._dim = np.dtype(dtype), dim
        self._file = cache_file(folder, fingerprint)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(folder, error) from None
        self._db = sqlite3.connect(self._file, timeout=60)
        try:
            with _messages_in_utf8():
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
        """Return the stored rows by key; keys without a row, or with a damaged one, are left out.

        The number of damaged rows is logged.
        """
        found = self._select("features", keys, self._dim * self._dtype.itemsize)
        return {key: np.frombuffer(row, self._dtype) for key, row in found.items()}

    def put(self, keys: Sequence[bytes], rows: Array) -> None:
        """Store one row (dim,) for each key in one transaction."""
        contents = (row.tobytes() for row in rows.astype(self._dtype))
        self._insert("features", zip(keys, contents, strict=True))

    def file_keys(self, paths: Sequence[Path]) -> list[bytes | None]:
        """Return the content hash of each file; None for a file that cannot be read.

        A file is read again if its stamp has changed.
        """
        stamps = [picture_stamp(path) for path in paths]
        names = [None if x is None else content_hash(x.encode(errors="replace")) for x in stamps]
        known = self._select("stamps", [name for name in names if name is not None], KEY_BYTES)
        new = {}
        for path, name in zip(paths, names, strict=True):
            if name is not None and name not in known:
                try:
                    known[name] = new[name] = content_hash(read_picture(path))
                except OSError:
                    continue
        self._insert("stamps", new.items())
        return [None if name is None else known.get(name) for name in names]

    def _select(self, table: str, keys: Sequence[bytes], size: int) -> dict[bytes, bytes]:
        """Return the values, of ``size`` bytes, of the keys in a table; log the damaged ones."""
        unique = list(dict.fromkeys(keys))
        out, damaged = {}, 0
        for start in range(0, len(unique), 500):
            part = unique[start : start + 500]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, value FROM {table} WHERE key IN ({marks})"
            with _messages_in_utf8():
                rows = self._db.execute(query, part).fetchall()
            for key, value in rows:
                if _is_whole(key, value, size):
                    out[key] = value[:size]
                else:
                    damaged += 1
        if damaged:
            log.warning("%s: %s damaged %s are computed again", self._file, f"{damaged:,}", table)
        return out

    def _insert(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Store keys and values in one transaction."""
        values = [(key, value + row_checksum(key, value)) for key, value in rows]
        with _messages_in_utf8(), self._db:
            self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", values)


@contextmanager
def _messages_in_utf8() -> Iterator[None]:
    """Context that raises DatabaseError for messages of SQLite with bytes of a damaged file."""
    try:
        yield
    except UnicodeDecodeError:
        raise sqlite3.DatabaseError("it is damaged") from None


def _is_whole(key: object, value: object, size: int) -> bool:
    """Whether a stored value of ``size`` bytes matches its checksum, if it has one."""
    if not (isinstance(key, bytes) and isinstance(value, bytes) and len(value) >= size):
        return False
    return value[size:] in (b"", row_checksum(key, value[:size]))


def content_hash(data: bytes) -> bytes:
    """Return the key of a row, a hash of 16 bytes."""
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()


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
        raise _unusable(cache_file(cache, fingerprint), error) from None


def cache_file(folder: Path, fingerprint: str) -> Path:
    """Return the file of a fingerprint."""
    name = "".join(c if c.isalnum() or c in "-._" else "_" for c in fingerprint)
    return folder / f"{name}.sqlite"


def _unusable(path: Path, error: Exception) -> DataError:
    advice = "remove it"
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in NOT_DAMAGE or isinstance(error, OSError):
        advice = "make it writable, with free space on its disk"
    return DataError(
        f"the feature cache {path} cannot be used ({error}): {advice}, or name another with "
        "--cache or XMODAL_CACHE"
    )

"""Pictures of a local index that was moved or copied together with its pictures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xmodal.data.packed import is_picture_file
from xmodal.data.picture_files import joint_hash, picture_hashes, picture_stamp
from xmodal.index.origins import read_origin

PARENTS = 2
"""Folders above an index below which pictures are searched."""
MAX_KNOWN = 100_000
"""Documents whose pictures are remembered with their hash."""
SHARE, MAX_SECONDS = 0.25, 1.0
"""Time in which pictures are hashed: share of it on average, and seconds at once after a pause."""


class MovedPictures:
    """Present paths of pictures; each picture is hashed once, in a bounded share of the time.

    Otherwise one search with many hits would read gigabytes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._hashes: dict[tuple[str, ...], str] = {}
        self._left, self._since = MAX_SECONDS, clock()

    def find(self, fields: dict[str, Any], origin_text: str, folder: Path) -> dict[str, Any]:
        """Return the fields of a document with the present paths of its pictures.

        ``folder``: of the index. Pictures that are not at their paths are searched below the two
        folders above it, by the ends of their paths. They must have the hash of the document's
        origin; otherwise, and if too much was hashed just now, the fields are returned unchanged.
        """
        origin, stored = read_origin(origin_text), fields.get("image")
        if origin is None or not origin.pictures or stored is None:
            return fields
        several = isinstance(stored, list)
        paths = [str(path) for path in stored] if several else [str(stored)]
        if all(map(is_picture_file, paths)):
            return fields
        found = [next(_candidates(path, folder), None) for path in paths]
        present = [Path(path) for path in found if path is not None]
        if len(present) < len(paths) or self._hash(present) != origin.pictures:
            return fields
        return fields | {"image": found if several else found[0]}

    def _hash(self, paths: Sequence[Path]) -> str | None:
        """Return the hash of pictures; None if one cannot be read, or if it has to wait."""
        stamps = [picture_stamp(path) for path in paths]
        key = tuple(stamp for stamp in stamps if stamp is not None)
        if len(key) < len(paths):
            return None
        if key not in self._hashes:
            if not self._has_time():
                return None
            start = self._clock()
            hashes = picture_hashes(paths)
            with self._lock:
                self._left -= self._clock() - start
                if len(self._hashes) >= MAX_KNOWN:
                    self._hashes.clear()
                self._hashes[key] = joint_hash([hashes[path] for path in paths])
        return self._hashes.get(key)

    def _has_time(self) -> bool:
        """Return whether pictures may be hashed now."""
        with self._lock:
            now = self._clock()
            self._left = min(MAX_SECONDS, self._left + SHARE * (now - self._since))
            self._since = now
            return self._left > 0


_pictures = MovedPictures()


def find_pictures(fields: dict[str, Any], origin_text: str, folder: Path) -> dict[str, Any]:
    """Return :meth:`MovedPictures.find` of all indexes of this process."""
    return _pictures.find(fields, origin_text, folder)


def _candidates(path: str, folder: Path) -> Iterator[str]:
    """Yield the files that a picture may be now, the most similar path first."""
    if is_picture_file(path):
        yield path
    ends = Path(path).parts[1:]
    for parent in list(folder.absolute().parents)[:PARENTS]:
        for start in range(len(ends)):
            candidate = parent.joinpath(*ends[start:])
            if is_picture_file(candidate):
                yield str(candidate)

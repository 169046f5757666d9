"""Files of pictures: hashes of their bytes, and stamps by which a changed file is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from xmodal.data.items import FeatureName, ImageSource
from xmodal.data.packed import open_picture, picture_stat
from xmodal.data.progress import Progress

THREADS = 8
"""Pictures that are read at the same time."""


def picture_hashes(
    sources: Iterable[ImageSource], progress: Progress | None = None
) -> dict[ImageSource, str | None]:
    """Return the SHA-256 of the bytes of each picture, None for unreadable ones.

    Every picture is read once.
    """
    different = list(dict.fromkeys(sources))
    hashes: dict[ImageSource, str | None] = {}
    with ThreadPoolExecutor(THREADS, thread_name_prefix="hash") as pool:
        for source, digest in zip(different, pool.map(picture_hash, different), strict=True):
            hashes[source] = digest
            if progress:
                progress("hashing", len(hashes), len(different))
    return hashes


def picture_stamp(source: ImageSource) -> str | None:
    """Return a text that changes when a picture changes, None if there is no file.

    It has the path, size and times of the file, and its inode. The time of the last change of the
    inode is newer after every write, also where a program sets the modification time back. All of
    these are of the container for a packed picture.
    """
    if isinstance(source, FeatureName):
        return None
    try:
        stat = picture_stat(source)
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return None
    state = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return "\0".join(map(str, (os.path.abspath(source), *state)))


def joint_hash(values: Sequence[str | None]) -> str:
    """Return one hash of texts in order, 32 hexadecimal digits.

    It is "" if there is no text, or if one is None.
    """
    if not values or None in values:
        return ""
    text = "\0\0".join(map(str, values))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def picture_hash(source: ImageSource) -> str | None:
    """Return the SHA-256 of the bytes of a picture, None for an unreadable one."""
    if isinstance(source, FeatureName):
        return None
    try:
        with open_picture(source) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return None

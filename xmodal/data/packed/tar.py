"""Tar archives (POSIX ustar and pax, GNU), also compressed by gzip or zstd.

Headers are parsed here and not by ``tarfile``, which keeps an object for each member and has no
bounds for hostile archives. Links, devices and sparse members are not read.
Format: POSIX.1-2017, "pax Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import gzip
import os
import re
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import IO, Any, NamedTuple

import numpy as np

from xmodal.data.problems import Problems
from xmodal.errors import DataError

BLOCK = 512
CHUNK = 2**20
MAX_HEADER_BYTES = 2**20
"""Maximum size of a long name or of a pax header."""
MAX_PADDING = 2**20
"""Maximum number of zero bytes between two parts of a concatenated archive."""
MAX_RATIO, MIN_UNPACKED = 100, 256 * 2**20
"""A compressed archive is unpacked to at most MAX_RATIO times its size, or to MIN_UNPACKED."""
LEFT_OUT = "member of the shard that is not a plain file"
NOT_SAFE = "member of the shard with a name that leaves the shard"
_UNUSUAL = re.compile(r"//|/\.|/\Z|\0").search
FOLDER = b"5"
_KINDS = {b"1": "link", b"2": "link", b"3": "device", b"4": "device", b"6": "pipe", b"S": "sparse"}


class Member(NamedTuple):
    """A file of an archive: its name, and the place of its bytes in the unpacked archive."""

    name: str
    offset: int
    size: int


class Tar:
    """The members of an archive, read forward once.

    ``path``: for error messages and the size bound of a compressed archive.
    """

    def __init__(self, path: Path, file: IO[bytes], compressed: bool) -> None:
        self.path = path
        self._file = file
        self._compressed = compressed
        self._position = 0
        size = os.fstat(file.fileno()).st_size if not compressed else os.stat(path).st_size
        self._end = max(MIN_UNPACKED, MAX_RATIO * size) if compressed else size

    def members(self, problems: Problems | None = None) -> Iterator[Member]:
        """Yield the plain files in order; record other members except folders.

        :meth:`read` reads the member that was yielded last. Raises DataError at the place where the
        archive is damaged or ends too early.
        """
        problems = Problems() if problems is None else problems
        pax: dict[str, bytes] = {}
        long_name: bytes | None = None
        ended, zeros = False, 0
        while header := self._read(BLOCK):
            if not header.strip(b"\0"):
                ended, zeros = True, zeros + BLOCK
                if zeros > MAX_PADDING:
                    return
                continue
            if len(header) < BLOCK or not _has_checksum(header):
                if ended:  # bytes after the end of the archive
                    return
                raise self._damaged("no header of a member")
            ended, zeros = False, 0
            kind, size = header[156:157], _number(header[124:136])
            if kind in b"xgLK":
                if size is None or not 0 <= size <= MAX_HEADER_BYTES:
                    raise self._damaged("a header of impossible size")
                content = self._read_all(size)
                self._skip(-size % BLOCK)
                if kind == b"x":
                    pax = _pax_records(content)
                elif kind == b"L":
                    long_name = content.rstrip(b"\0")
                continue
            if "size" in pax:
                digits = pax["size"]
                size = int(digits) if digits.isdigit() and len(digits) < 20 else None
            if size is None or size < 0:
                raise self._damaged("a member of impossible size")
            name = pax.get("path", long_name or _name(header)).decode("utf-8", "surrogateescape")
            sparse = any(key.startswith("GNU.sparse") for key in pax)
            pax, long_name = {}, None
            start = self._position
            if sparse or kind in _KINDS:
                problems.add(LEFT_OUT, f"{name} ({_KINDS.get(kind, 'sparse')})")
            elif kind in b"07\0" and not name.endswith("/"):
                if (safe := safe_name(name)) is None:
                    problems.add(NOT_SAFE, ascii(name))
                elif start + size > self._end:
                    raise self._damaged(f"the end of the file within {name}")
                else:
                    yield Member(safe, start, size)
            elif kind != FOLDER and not name.endswith("/"):
                problems.add(LEFT_OUT, f"{name} (type {kind!r})")
            stored = 0 if kind in b"123456" else size + -size % BLOCK
            self._skip(start + stored - self._position)
        if not ended:
            problems.add("shard without an end mark, it may be cut off", self.path.name)

    def read(self, member: Member) -> bytes:
        """Return the bytes of the member that was yielded last, once. Raises DataError."""
        return self._read_all(member.size)

    def _read(self, size: int) -> bytes:
        if self._compressed:
            with _reading_errors(self.path):
                data = self._file.read(size)
        else:
            data = self._file.read(size)
        self._position += len(data)
        if self._compressed and self._position > self._end:
            raise DataError(
                f"{self.path} unpacks to more than {MAX_RATIO} times its size: it is not read "
                "further"
            )
        return data

    def _read_all(self, size: int) -> bytes:
        parts = []
        while size > 0:
            data = self._read(min(size, CHUNK))
            if not data:
                raise self._damaged("the end of the file within a member")
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        """Go forward. The last block of an archive may be incomplete."""
        if not self._compressed:
            self._position += size
            if self._position > self._end + BLOCK:
                raise self._damaged("the end of the file within a member")
            self._file.seek(self._position)
            return
        while size > 0 and (data := self._read(min(size, CHUNK))):
            size -= len(data)
        if size >= BLOCK:
            raise self._damaged("the end of the file within a member")

    def _damaged(self, found: str) -> DataError:
        return DataError(
            f"{self.path} is damaged or cut off at byte {self._position:,}: found {found}"
        )


@contextmanager
def open_tar(path: Path) -> Iterator[Tar]:
    """Open an archive for one pass. Raises DataError for a damaged one, OSError like ``open``."""
    with open(path, "rb") as raw:
        compression = _compression(raw)
        if compression is None:
            yield Tar(path, raw, False)
        else:
            with _unpacked(raw, compression) as file:
                yield Tar(path, file, True)


class TarContainer:
    """An archive whose members are read in any order; see :class:`xmodal.data.packed.pictures`.

    A compressed archive is unpacked to an unnamed temporary file. Of members of the same name, the
    first one is read. If the archive is damaged, members before the damage can be read.
    """

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self._file = _random_access(path)
        weakref.finalize(self, self._file.close)
        hashes, offsets, sizes = array("q"), array("q"), array("q")
        try:
            for name, offset, size in Tar(path, self._file, False).members():
                hashes.append(hash(name))
                offsets.append(offset)
                sizes.append(size)
        except DataError as error:
            damage: DataError | None = error
        else:
            damage = None
        if not hashes:
            raise damage or DataError(f"{path} is damaged or empty: no file can be read from it")
        order = np.argsort(np.asarray(hashes), kind="stable")
        self._hashes = np.asarray(hashes)[order]
        self._offsets = np.asarray(offsets)[order]
        self._sizes = np.asarray(sizes)[order]

    def read(self, place: tuple[str, ...], max_bytes: int) -> bytes | None:
        """Return the bytes of a member; see :class:`xmodal.data.packed.pictures.Container`."""
        wanted = hash("/".join(place))
        row = int(np.searchsorted(self._hashes, wanted))
        if row == len(self._hashes) or self._hashes[row] != wanted:
            return None
        size = int(self._sizes[row])
        if size > max_bytes:
            raise OSError(f"{size:,} bytes, expected at most {max_bytes:,}")
        with self._lock:
            self._file.seek(int(self._offsets[row]))
            return self._file.read(size)


def safe_name(name: str) -> str | None:
    """Return the name of a member without "." parts; None if it is absolute or has ".." parts."""
    if name[:1] not in "/." and not _UNUSUAL(name):  # the usual case
        return name
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name or ".." in parts or parts[0].startswith("/"):
        return None
    return "/".join(parts)


def _random_access(path: Path) -> IO[bytes]:
    """Return an archive as a file with ``seek``; a compressed one is unpacked."""
    raw = open(path, "rb")
    compression = _compression(raw)
    if compression is None:
        return raw
    with raw, _unpacked(raw, compression) as file:
        target = tempfile.TemporaryFile(prefix="xmodal-")
        limit = max(MIN_UNPACKED, MAX_RATIO * os.stat(path).st_size)
        try:
            # Everything before damage is kept; the parser of headers finds the place.
            while target.tell() <= limit and (data := _read_or_stop(file)):
                target.write(data)
            target.seek(0)
        except BaseException:
            target.close()
            raise
        return target


def _read_or_stop(file: IO[bytes]) -> bytes:
    """Return the next bytes, b"" at the end and at damage; no byte before damage is lost."""
    try:
        return file.read1(CHUNK) if isinstance(file, gzip.GzipFile) else file.read(BLOCK)
    except (OSError, EOFError, ValueError, zlib.error):
        return b""


def _compression(file: IO[bytes]) -> str | None:
    """Return the compression of a file by its first bytes."""
    start = file.read(4)
    file.seek(0)
    return "gzip" if start[:2] == b"\x1f\x8b" else "zstd" if start == b"\x28\xb5\x2f\xfd" else None


@contextmanager
def _unpacked(raw: IO[bytes], compression: str) -> Iterator[IO[bytes]]:
    """Return the unpacked content of a file, to be read forward."""
    if compression == "gzip":
        with gzip.GzipFile(fileobj=raw) as file:
            yield file  # type: ignore[misc]
        return
    import pyarrow as pa

    stream: Any = pa.CompressedInputStream(pa.PythonFile(raw, "r"), compression)
    with stream:
        yield stream


@contextmanager
def _reading_errors(path: Path) -> Iterator[None]:
    """Raise DataError for the errors of reading compressed content."""
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{path} is damaged or cut off ({reason})") from None


def _has_checksum(header: bytes) -> bool:
    """Whether the sum of the bytes is right; the bytes of the sum itself count as spaces."""
    field = header[148:156]
    return sum(header) - sum(field) + 8 * ord(" ") == _number(field)


def _number(field: bytes) -> int | None:
    """Return a number of a header: octal text, or binary if the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big", signed=True) + (1 << (8 * len(field) - 1))
    try:
        return int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        return None


def _name(header: bytes) -> bytes:
    """Return the name in a header; POSIX archives have its beginning in a field of its own."""
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax_records(content: bytes) -> dict[str, bytes]:
    r"""Return the records ``"LENGTH KEY=VALUE\n"`` of a pax header; stop at a damaged one."""
    records = {}
    start = 0
    while start < len(content):
        length, space, _ = content[start : start + 20].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 2 < int(length):
            break
        key, _, value = content[start + len(length) + 1 : start + int(length)].partition(b"=")
        records[key.decode("utf-8", "replace")] = value.removesuffix(b"\n")
        start += int(length)
    return records

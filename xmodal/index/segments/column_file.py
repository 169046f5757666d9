"""A file of columns, which is written once and mapped into memory.

Each column begins at a multiple of ``ALIGNMENT`` bytes, in the byte order little endian, and is
padded with zeros to the next one. Behind the columns are the checksums of the blocks of each column
that is longer than a block, then the directory: JSON with name, type, shape, place and checksum of
every column. Size of the file, place and checksum of the directory are the file's record, which is
stored elsewhere. Every byte of the file is covered by a checksum (xxh3, 64 bits): opening checks
the directory, the first use of a column its content, or the blocks that are used.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import xxhash

from xmodal.checksums import BLOCK, CheckedBlocks, block_checksums, bytes_of, is_damage
from xmodal.errors import IndexFailure
from xmodal.index.segments.columns import Array, Chunks, Column, Int64
from xmodal.operating_system import read_at_random

ALIGNMENT = 64
"""Bytes of a line of the processor's cache."""
CHECKED_AT_ONCE = 1 << 24
"""Bytes of a column that are checked in one step."""


class FileRecord(NamedTuple):
    """What identifies a file: its size in bytes, and place and checksum of its directory."""

    size: int
    directory: int
    checksum: int


class _Place(NamedTuple):
    """Type, shape, first byte and checksum of a column, and first byte of its block checksums.

    ``blocks``: 0 for a column of one block.
    """

    dtype: str
    shape: list[int]
    offset: int
    checksum: int
    blocks: int

    @property
    def size(self) -> int:
        """Bytes of the column with its padding."""
        return _padded(np.dtype(self.dtype).itemsize * int(np.prod(self.shape, dtype=object)))


class Checked(NamedTuple):
    """Part of a column that was checked: its bytes, and what is wrong with the whole column."""

    path: Path
    column: str
    size: int
    damage: str | None = None


def write_columns(path: Path, columns: Mapping[str, Column], meta: Mapping[str, Any]) -> FileRecord:
    """Write columns and JSON to a new file, sync it, and return its record."""
    with open(path, "xb", buffering=1 << 20) as file:
        written = {name: _write_column(file, column) for name, column in columns.items()}
        places = {}
        for name, (place, blocks) in written.items():
            at = file.tell() if blocks is not None else 0
            if blocks is not None:
                file.write(bytes_of(blocks))
            places[name] = place._replace(blocks=at)
        directory = json.dumps({"columns": places, "meta": dict(meta)}).encode()
        record = FileRecord(
            file.tell() + len(directory), file.tell(), xxhash.xxh3_64_intdigest(directory)
        )
        file.write(directory)
        file.flush()
        os.fsync(file.fileno())
    return record


class ColumnFile:
    """Columns of a file; safe for threads. See :class:`.columns.Columns`."""

    def __init__(
        self, path: Path, content: Array, places: Mapping[str, _Place], meta: Mapping[str, Any]
    ) -> None:
        self.path, self.meta = path, meta
        self._content, self._places = content, places
        self._arrays = {name: self._array(place) for name, place in places.items()}
        self._blocks: dict[str, CheckedBlocks] = {}
        self._whole: set[str] = set()

    @classmethod
    def open(cls, path: Path, record: FileRecord) -> ColumnFile:
        """Open a file; raises IndexFailure for a missing file and for another one."""
        try:
            content = _mapped(path, record.size)
            directory = content[record.directory : record.size].tobytes()
            if xxhash.xxh3_64_intdigest(directory) != record.checksum:
                raise ValueError("its directory does not match the checksum")
            stored = json.loads(directory)
            places = {name: _Place(*place) for name, place in stored["columns"].items()}
            return cls(path, content, places, stored["meta"])
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise unreadable(path, error) from None

    @property
    def names(self) -> Set[str]:
        """Names of the columns."""
        return self._places.keys()

    def whole(self, name: str) -> Array:
        """Return a column after all of its content was checked; raises IndexFailure."""
        if name not in self._whole:
            place = self._place(name)
            content = self._content[place.offset : place.offset + place.size]
            if xxhash.xxh3_64_intdigest(content.data) != place.checksum:
                raise _damaged(self.path, f"column {name} does not match the checksum")
            self._whole.add(name)
        return self._arrays[name]

    def rows(self, name: str, starts: Int64, ends: Int64) -> Array:
        """Return a column after rows of it were checked; raises IndexFailure."""
        place = self._place(name)
        if name in self._whole or not place.blocks:
            return self.whole(name)
        if name not in self._blocks:
            self._blocks[name] = self._checked_blocks(name)
        array = self._arrays[name]
        row_size = array.itemsize * int(np.prod(array.shape[1:]))
        try:
            self._blocks[name].check(starts * row_size, ends * row_size)
        except ValueError as error:
            raise _damaged(self.path, f"column {name}, {error}") from None
        return array

    def bytes_read(self, *, whole: bool) -> int:
        """Return the bytes of the columns that were read whole, or of those read in part."""
        names = self._whole if whole else self._blocks.keys() - self._whole
        return sum(self._places[name].size for name in names)

    def check(self) -> Iterator[Checked]:
        """Check all columns and the checksums of their blocks; yield the parts that were read."""
        for name, place in self._places.items():
            found, end = xxhash.xxh3_64(), place.offset + place.size
            for start in range(place.offset, end, CHECKED_AT_ONCE):
                part = self._content[start : min(start + CHECKED_AT_ONCE, end)]
                found.update(part.data)
                yield Checked(self.path, name, len(part))
            if found.intdigest() != place.checksum:
                yield Checked(self.path, name, 0, "does not match the checksum")
            elif place.blocks:
                try:
                    self._checked_blocks(name)
                except IndexFailure:
                    yield Checked(self.path, name, 0, "has damaged checksums of its blocks")

    def _place(self, name: str) -> _Place:
        if name not in self._places:
            raise _damaged(self.path, f"it has no column {name}")
        return self._places[name]

    def _checked_blocks(self, name: str) -> CheckedBlocks:
        """Return the blocks of a column; their checksums are checked."""
        place = self._places[name]
        content = self._content[place.offset : place.offset + place.size]
        count = -(-place.size // BLOCK)
        stored = self._content[place.blocks : place.blocks + 8 * (count + 1)].view("<u8")
        checksums = stored[:-1]
        if len(checksums) != count or xxhash.xxh3_64_intdigest(checksums.tobytes()) != stored[-1]:
            raise _damaged(self.path, f"checksums of column {name} do not match their checksum")
        self._random_access(place)
        return CheckedBlocks(content, checksums)

    def _random_access(self, place: _Place) -> None:
        """Tell the system that few rows of a column are read, far apart."""
        mapped = self._content.base
        mapped = mapped.obj if isinstance(mapped, memoryview) else mapped
        if isinstance(mapped, mmap.mmap):
            start = -(-place.offset // mmap.PAGESIZE) * mmap.PAGESIZE
            read_at_random(mapped, start, place.offset + place.size - start)

    def _array(self, place: _Place) -> Array:
        """Return the column at a place."""
        dtype = np.dtype(place.dtype)
        size = dtype.itemsize * int(np.prod(place.shape, dtype=object))
        return self._content[place.offset : place.offset + size].view(dtype).reshape(place.shape)


def _write_column(file: BinaryIO, column: Column) -> tuple[_Place, Array | None]:
    """Write a column; return its place, and checksums of its blocks if it has several.

    The last of these is the checksum of the others.
    """
    chunks = column if isinstance(column, Chunks) else Chunks(column.dtype, column.shape, [column])
    dtype = np.dtype(chunks.dtype).newbyteorder("<")
    shape = [int(size) for size in chunks.shape]
    offset, whole, blocks = file.tell(), xxhash.xxh3_64(), []
    place = _Place(dtype.str, shape, offset, 0, 0)
    left = b""
    for part in _padded_parts(chunks, dtype, place.size):
        file.write(part)
        whole.update(part)
        joined = memoryview(left + bytes(part)) if left else part
        full = len(joined) // BLOCK * BLOCK
        blocks.append(block_checksums(joined[:full]))
        left = bytes(joined[full:])
    if left:
        blocks.append(block_checksums(memoryview(left)))
    place = place._replace(checksum=whole.intdigest())
    if place.size <= BLOCK:
        return place, None
    checksums = np.concatenate(blocks).astype("<u8")
    seal = np.array([xxhash.xxh3_64_intdigest(checksums.tobytes())], "<u8")
    return place, np.concatenate([checksums, seal])


def _padded_parts(chunks: Chunks, dtype: np.dtype[Any], size: int) -> Iterator[memoryview]:
    """Yield the bytes of a column, then its padding; ``size``: with padding."""
    written = 0
    for part in chunks.parts:
        content = bytes_of(part.astype(dtype, copy=False))
        written += len(content)
        yield content
    if _padded(written) != size:
        raise ValueError(f"a column has {written} bytes, expected shape {chunks.shape}")
    yield memoryview(bytes(size - written))


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _mapped(path: Path, size: int) -> Array:
    """Return the bytes of a file, mapped into memory; raises OSError for another size."""
    with open(path, "rb") as file:
        found = os.fstat(file.fileno()).st_size
        if found != size or size == 0:
            raise OSError(f"{found} bytes, expected {size}")
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file, and sync it."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def unreadable(path: Path, error: Exception) -> IndexFailure:
    """Return the error for a file that could not be read."""
    if not isinstance(error, OSError):
        return _damaged(path, error)
    if not is_damage(error):
        return IndexFailure(f"{path} cannot be read: {error.strerror}")
    return _damaged(path, error.strerror or error)


def _damaged(path: Path, reason: object) -> IndexFailure:
    return IndexFailure(f"{path} is missing or damaged ({reason}): remove the index, index again")

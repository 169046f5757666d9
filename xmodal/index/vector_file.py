"""Files of int8 vectors beside the Parquet file of a local index, one per modality.

A file contains one row of ``dim`` int8 per code, in the order of the codes, and nothing else. It is
never changed: a save writes files with new names, which the metadata of the Parquet file record, so
that the rename of that file replaces codes and vectors together. Files that it does not name are
left over and removed by the next save.

A search reads few rows of a large file. Beside it, a file of the same name with the ending ``.crc``
has a CRC-32 for each of its blocks (see :mod:`xmodal.checksums`), by which those rows are checked
when they are read. Files of earlier versions have none.
"""

from __future__ import annotations

import json
import mmap
import os
import secrets
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.checksums import CheckedBlocks, Int64, bytes_of, is_damage
from xmodal.errors import IndexFailure
from xmodal.index.documents import Vectors
from xmodal.modality import MODALITIES, Modality
from xmodal.vectors import Int8

PREFIX, CHECKSUMS = "vectors-", ".crc"
CHECKSUM_BYTES = 4
BLOCK = 4096
CHUNK = 1 << 22
"""Bytes that are written and read at once."""


class VectorFile(NamedTuple):
    """Record of a file: its name, number and dimension of its vectors, and CRC-32 of its bytes.

    ``blocks``: CRC-32 of the file of the checksums of its blocks, None if there is no such file.
    """

    name: str
    rows: int
    dim: int
    checksum: int
    blocks: int | None = None

    def open(self, folder: Path) -> Int8:
        """Return the vectors, (rows, dim), mapped into memory; raises IndexFailure.

        Bytes are read when they are used. Number of bytes is checked here, content by ``verify``
        and by the ``checked_blocks``.
        """
        size = self.rows * self.dim
        try:
            with open(folder / self.name, "rb") as file:
                found = os.fstat(file.fileno()).st_size
                if found != size:
                    raise OSError(f"{found} bytes, expected {size}")
                # An empty file cannot be mapped.
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except OSError as error:
            raise _unreadable(folder / self.name, error) from None
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
            mapped.madvise(mmap.MADV_RANDOM)  # a search reads few rows that are far apart
        return np.frombuffer(mapped, np.int8).reshape(self.rows, self.dim)

    def checked_blocks(self, folder: Path, vectors: Int8) -> CheckedBlocks | None:
        """Return the checksums of the blocks of the opened vectors, None if there are none.

        Raises IndexFailure for a missing or damaged file.
        """
        if self.blocks is None:
            return None
        path = folder / f"{self.name}{CHECKSUMS}"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from None
        if zlib.crc32(content) != self.blocks:
            raise _damaged(path, "its content does not match the checksum")
        if len(content) % CHECKSUM_BYTES:
            raise _damaged(path, f"{len(content)} bytes are no checksums of {CHECKSUM_BYTES}")
        return CheckedBlocks(vectors, np.frombuffer(content, "<u4"), zlib.crc32, BLOCK)

    def verify(self, folder: Path) -> None:
        """Read the whole file; raise IndexFailure if its content is not what was written."""
        checksum = 0
        try:
            with open(folder / self.name, "rb") as file:
                while chunk := file.read(CHUNK):
                    checksum = zlib.crc32(chunk, checksum)
        except OSError as error:
            raise _unreadable(folder / self.name, error) from None
        if checksum != self.checksum:
            raise _damaged(folder / self.name, "its content does not match the checksum")


VectorFiles = Mapping[Modality, VectorFile]
"""Files of both modalities; empty for an index without vectors."""


def write_vectors(folder: Path, vectors: Vectors) -> VectorFiles:
    """Write vectors to new files, and sync them; without vectors, no file is written."""
    return {m: _write(folder, f"{PREFIX}{m}-{secrets.token_hex(8)}", vectors[m]) for m in vectors}


class MappedVectors:
    """Vectors that are mapped from files into memory and checked when they are read.

    ``vectors``: opened from ``files`` in ``folder``; ``blocks``: the checksums of their blocks.
    Without arguments there are none.
    """

    def __init__(
        self,
        folder: Path = Path(),
        files: VectorFiles | None = None,
        vectors: Vectors | None = None,
        blocks: Mapping[Modality, CheckedBlocks | None] | None = None,
    ) -> None:
        self.files, self.vectors = files or {}, vectors or {}
        self._folder, self._blocks = folder, blocks or {}

    @classmethod
    def open(cls, folder: Path, files: VectorFiles) -> MappedVectors:
        """Open all files; raises IndexFailure for a missing one or one of another size."""
        vectors = {modality: file.open(folder) for modality, file in files.items()}
        blocks = {m: file.checked_blocks(folder, vectors[m]) for m, file in files.items()}
        return cls(folder, files, vectors, blocks)

    def check(self, modality: Modality, starts: Int64, ends: Int64) -> None:
        """Raise IndexFailure if the vectors ``starts[i] : ends[i]``, for all i, are damaged.

        Vectors of earlier versions, without checksums of blocks, are not checked.
        """
        blocks = self._blocks.get(modality)
        if blocks is None:
            return
        file = self.files[modality]
        try:
            blocks.check(starts * file.dim, ends * file.dim)
        except ValueError as error:
            raise _damaged(self._folder / file.name, error) from None

    def verify(self) -> None:
        """Read all files; raise IndexFailure if the content of one is not what was written."""
        for file in self.files.values():
            file.verify(self._folder)


def remove_unused(folder: Path, prefix: str, used: Collection[str]) -> None:
    """Remove the files whose names begin with ``prefix`` and are not among ``used``."""
    for path in folder.glob(f"{prefix}*"):
        if path.name not in used:
            # Windows does not remove a file that is mapped; a later save does.
            with suppress(PermissionError):
                path.unlink(missing_ok=True)


def files_to_json(files: VectorFiles) -> str:
    """Return the records as JSON, without ``blocks``, which earlier versions do not accept."""
    records = {modality: file._asdict() for modality, file in files.items()}
    return json.dumps(
        {m: {k: v for k, v in r.items() if k != "blocks"} for m, r in records.items()}
    )


def blocks_to_json(files: VectorFiles) -> str:
    """Return ``blocks`` of the records as JSON."""
    return json.dumps({modality: file.blocks for modality, file in files.items()})


def files_from_json(text: str, blocks: str = "{}") -> VectorFiles:
    """Return the records of :func:`files_to_json` and :func:`blocks_to_json`.

    Raises ValueError for other text.
    """
    records, checksums = json.loads(text), json.loads(blocks)
    if not records:
        return {}
    try:
        files: VectorFiles = {
            m: VectorFile(**records[m], blocks=checksums.get(m)) for m in MODALITIES
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"records of vectors are not readable: {error}") from None
    for file in files.values():
        if not all(map(_is_count, (file.rows, file.dim, file.checksum, file.blocks or 0))):
            raise ValueError(f"the record of a file of vectors is {tuple(file)}")
        name = str(file.name)
        if not name.startswith(PREFIX) or Path(name).name != file.name:
            raise ValueError(f"a file of vectors is named {name!r}")
    return files


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _write(folder: Path, name: str, vectors: Int8) -> VectorFile:
    rows, dim = vectors.shape
    content = bytes_of(vectors)
    _write_synced(folder / name, content)
    blocks = bytes_of(_block_checksums(content).astype("<u4"))
    _write_synced(folder / f"{name}{CHECKSUMS}", blocks)
    return VectorFile(name, rows, dim, zlib.crc32(content), zlib.crc32(blocks))


def _block_checksums(content: memoryview) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of each block."""
    starts = range(0, len(content), BLOCK)
    return np.array([zlib.crc32(content[start : start + BLOCK]) for start in starts], np.uint32)


def _write_synced(path: Path, content: memoryview) -> None:
    """Write a new file, and sync it."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _unreadable(path: Path, error: OSError) -> IndexFailure:
    """Return the error for a file that could not be read."""
    if not is_damage(error):
        return IndexFailure(f"{path} cannot be read: {error.strerror}")
    return _damaged(path, error.strerror or error)


def _damaged(path: Path, reason: object) -> IndexFailure:
    return IndexFailure(f"{path} is missing or damaged ({reason}): remove the index, index again")

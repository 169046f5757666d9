"""Files of int8 vectors beside the Parquet file of a local index, one per modality.

A file contains one row of ``dim`` int8 per code, in the order of the codes, and nothing else. It is
never changed: a save writes files with new names, which the metadata of the Parquet file record, so
that the rename of that file replaces codes and vectors together. Files that it does not name are
left over and removed by the next save.
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

from xmodal.errors import IndexFailure
from xmodal.index.documents import Vectors
from xmodal.modality import MODALITIES, Modality
from xmodal.vectors import Int8

PREFIX = "vectors-"
CHUNK = 1 << 22
"""Bytes that are written and read at once."""


class VectorFile(NamedTuple):
    """Record of a file: its name, number and dimension of its vectors, and CRC-32 of its bytes."""

    name: str
    rows: int
    dim: int
    checksum: int

    def open(self, folder: Path) -> Int8:
        """Return the vectors, (rows, dim), mapped into memory; raises IndexFailure.

        Bytes are read when they are used. Number of bytes is checked here, content by ``verify``.
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
            raise _damaged(folder / self.name, error.strerror or error) from None
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
            mapped.madvise(mmap.MADV_RANDOM)  # a search reads few rows that are far apart
        return np.frombuffer(mapped, np.int8).reshape(self.rows, self.dim)

    def verify(self, folder: Path) -> None:
        """Read the whole file; raise IndexFailure if its content is not what was written."""
        checksum = 0
        try:
            with open(folder / self.name, "rb") as file:
                while chunk := file.read(CHUNK):
                    checksum = zlib.crc32(chunk, checksum)
        except OSError as error:
            raise _damaged(folder / self.name, error.strerror or error) from None
        if checksum != self.checksum:
            raise _damaged(folder / self.name, "its content does not match the checksum")


VectorFiles = Mapping[Modality, VectorFile]
"""Files of both modalities; empty for an index without vectors."""


def write_vectors(folder: Path, vectors: Vectors) -> VectorFiles:
    """Write vectors to new files, and sync them; without vectors, no file is written."""
    return {m: _write(folder, f"{PREFIX}{m}-{secrets.token_hex(8)}", vectors[m]) for m in vectors}


def open_vectors(folder: Path, files: VectorFiles) -> Vectors:
    """Return the vectors of all files; raises IndexFailure for a missing or damaged one."""
    return {modality: file.open(folder) for modality, file in files.items()}


def verify_vectors(folder: Path, files: VectorFiles) -> None:
    """Raise IndexFailure if the content of a file is not what was written."""
    for file in files.values():
        file.verify(folder)


def remove_unused(folder: Path, prefix: str, used: Collection[str]) -> None:
    """Remove the files whose names begin with ``prefix`` and are not among ``used``."""
    for path in folder.glob(f"{prefix}*"):
        if path.name not in used:
            # Windows does not remove a file that is mapped; a later save does.
            with suppress(PermissionError):
                path.unlink(missing_ok=True)


def files_to_json(files: VectorFiles) -> str:
    """Return the records as JSON."""
    return json.dumps({modality: file._asdict() for modality, file in files.items()})


def files_from_json(text: str) -> VectorFiles:
    """Return the records of :func:`files_to_json`; raises ValueError for other text."""
    records = json.loads(text)
    if not records:
        return {}
    try:
        files: VectorFiles = {m: VectorFile(**records[m]) for m in MODALITIES}
    except (TypeError, KeyError) as error:
        raise ValueError(f"records of vectors are not readable: {error}") from None
    for file in files.values():
        if not file.name.startswith(PREFIX) or Path(file.name).name != file.name:
            raise ValueError(f"a file of vectors is named {file.name!r}")
    return files


def _write(folder: Path, name: str, vectors: Int8) -> VectorFile:
    rows, dim = vectors.shape
    step, checksum = max(1, CHUNK // max(1, dim)), 0
    with open(folder / name, "xb") as file:
        for start in range(0, rows, step):
            content = vectors[start : start + step].tobytes()
            checksum = zlib.crc32(content, checksum)
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return VectorFile(name, rows, dim, checksum)


def _damaged(path: Path, reason: object) -> IndexFailure:
    return IndexFailure(f"{path} is missing or damaged ({reason}): remove the index, index again")

"""The file of the deleted documents of a segment: one bit each, set if the document is deleted."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from xmodal.index.scan import Mask
from xmodal.index.segments.column_file import unreadable, write_synced

DELETED = "deleted-"
"""Beginning of the names of these files."""


class DeletedRecord(NamedTuple):
    """Record of a file of deleted documents: its name and the xxh3 of its bytes."""

    name: str
    checksum: int


def write_deletions(folder: Path, live: Mask) -> DeletedRecord:
    """Write which documents are not live, (n,) bool, to a new file; return its record."""
    content = np.packbits(~live).tobytes()
    name = f"{DELETED}{secrets.token_hex(8)}"
    write_synced(folder / name, content)
    return DeletedRecord(name, xxhash.xxh3_64_intdigest(content))


def read_live(folder: Path, record: DeletedRecord, documents: int) -> Mask:
    """Return which documents are live, (documents,) bool; raises IndexFailure."""
    path = folder / record.name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    if xxhash.xxh3_64_intdigest(content) != record.checksum:
        raise unreadable(path, ValueError("its content does not match the checksum"))
    live: Mask = np.unpackbits(np.frombuffer(content, np.uint8), count=documents) == 0
    return live

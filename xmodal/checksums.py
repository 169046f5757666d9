"""Checksums of what xmodal stores: files, JSON objects, blocks of a file, and rows.

A file is recorded by its size and sha256, a JSON object by the sha256 of its content under its key
``DIGEST_KEY``. Blocks, which are checked when they are first read, have an xxh3 of 64 bits; rows a
CRC-32.
"""

from __future__ import annotations

import errno
import hashlib
import json
import stat
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from xmodal.errors import is_out_of_memory

DIGEST_KEY = "sha256"
BLOCK = 1 << 14
"""Bytes of a block with a checksum: a few pages of memory, in which mapped files are read."""
FEW = 64
"""Ranges of bytes that are looked up one by one."""
CHUNK = 1 << 22
"""Bytes of a file that are read at once."""
UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]
NOT_DAMAGE = frozenset({errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of the system that say nothing about the content of a file."""


def is_damage(error: Exception) -> bool:
    """Whether an error of reading a file may mean damage: no permission or memory is missing."""
    is_of_system = isinstance(error, OSError) and error.errno in NOT_DAMAGE
    return not (is_of_system or is_out_of_memory(error))


# ---- files -----------------------------------------------------------------------------------


def file_record(path: Path) -> dict[str, Any]:
    """Return size and sha256 of a file, as ``config.json`` records them."""
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def check_size(path: Path, record: Mapping[str, Any]) -> None:
    """Raise ValueError if there is no file of the recorded size."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path.name} is missing") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is no file")
    if found.st_size != record["bytes"]:
        raise ValueError(f"{path.name} has {found.st_size:,} bytes, expected {record['bytes']:,}")


def check_file(path: Path, record: Mapping[str, Any]) -> None:
    """Raise ValueError if a file is not the recorded one, OSError if it cannot be read."""
    check_size(path, record)
    found = _sha256(path)
    if found != record["sha256"]:
        raise ValueError(
            f"{path.name} has sha256 {found[:12]}..., expected {str(record['sha256'])[:12]}..."
        )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- JSON ------------------------------------------------------------------------------------


def digest(content: Mapping[str, Any], key: str = DIGEST_KEY) -> str:
    """Return the sha256 of the content without ``key``, as compact JSON with sorted keys."""
    plain = json.loads(json.dumps({k: v for k, v in content.items() if k != key}))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content with its digest."""
    return {**content, DIGEST_KEY: digest(content)}


def check_digest(content: Mapping[str, Any], name: str) -> None:
    """Raise ValueError if the content of the file ``name`` is not the one that was written.

    Content without a digest, of an earlier version, is accepted. A digest under a changed key is
    found by its value.
    """
    if DIGEST_KEY in content:
        whole = content[DIGEST_KEY] == digest(content)
    else:
        whole = not any(
            _is_hash(value) and value == digest(content, k) for k, value in content.items()
        )
    if not whole:
        raise ValueError(f"{name} was changed after it was written: its {DIGEST_KEY} differs")


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64


# ---- blocks and rows -------------------------------------------------------------------------


def bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of an array; they are copied if it is not contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def block_checksums(content: memoryview) -> UInt64:
    """Return the xxh3 of each block of ``BLOCK`` bytes; the last one may be shorter."""
    blocks = (content[start : start + BLOCK] for start in range(0, len(content), BLOCK))
    return np.fromiter(map(xxhash.xxh3_64_intdigest, blocks), np.uint64)


class CheckedBlocks:
    """Bytes that are compared with the checksums of their blocks when they are first used.

    ``content``: contiguous, for example mapped from a file. ``expected``: xxh3 of each block.
    Safe for threads.
    """

    def __init__(
        self,
        content: npt.NDArray[Any],
        expected: npt.NDArray[Any],
        checksum: Callable[[memoryview], int] = xxhash.xxh3_64_intdigest,
        block: int = BLOCK,
    ) -> None:
        self._content = bytes_of(content)
        self._expected, self._checksum, self._block = expected, checksum, block
        self._checked = np.zeros(len(expected), np.bool_)

    def check(self, starts: Int64, ends: Int64) -> None:
        """Raise ValueError unless the blocks of the bytes from ``starts`` to ``ends``, (n,), are
        those that were written.
        """
        for block in self._unchecked(starts, ends):
            found = self._checksum(self._content[block * self._block : (block + 1) * self._block])
            if found != self._expected[block]:
                raise ValueError(
                    f"byte {block * self._block:,} and the next do not match the checksum"
                )
            self._checked[block] = True

    def _unchecked(self, starts: Int64, ends: Int64) -> list[int]:
        """Return the blocks of the bytes that were not checked, in order."""
        if len(starts) <= FEW:  # numpy would take longer
            pairs = zip(starts.tolist(), ends.tolist(), strict=True)
            spans = [range(a // self._block, -(-b // self._block)) for a, b in pairs if a < b]
            if sum(map(len, spans)) <= 2 * FEW:
                return sorted({i for span in spans for i in span if not self._checked[i]})
        first, last = starts // self._block, (ends - 1) // self._block
        counts = np.where(ends > starts, last - first + 1, 0)
        before = np.cumsum(counts) - counts
        blocks = np.arange(counts.sum()) + np.repeat(first - before, counts)
        # Not np.unique, which loads a module at the first call: 30 ms.
        return sorted(set(blocks[~self._checked[blocks]].tolist()))


def row_checksum(key: bytes, row: bytes) -> bytes:
    """Return the checksum of a row and of the key that it is stored under, 4 bytes."""
    return zlib.crc32(row, zlib.crc32(key)).to_bytes(4, "little")

"""Checksums: files, JSON objects, blocks, rows."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from xmodal.checksums import (
    BLOCK,
    DIGEST_KEY,
    FEW,
    CheckedBlocks,
    block_checksums,
    bytes_of,
    check_digest,
    check_file,
    check_size,
    file_record,
    is_damage,
    row_checksum,
    with_digest,
)


def test_recorded_file_is_accepted_and_another_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    record = file_record(path)
    check_file(path, record)
    path.write_bytes(b"contens")
    check_size(path, record)
    with pytest.raises(ValueError, match="file has sha256"):
        check_file(path, record)
    path.write_bytes(b"content.")
    with pytest.raises(ValueError, match="file has 8 bytes, expected 7"):
        check_size(path, record)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    record = {"bytes": 4096, "sha256": ""}
    for path in (tmp_path / "file", tmp_path / "other" / "file"):
        with pytest.raises(ValueError, match="file is missing"):
            check_size(path, record)
    (tmp_path / "file").mkdir()
    with pytest.raises(ValueError, match="file is no file"):
        check_size(tmp_path / "file", record | {"bytes": (tmp_path / "file").stat().st_size})


def test_missing_permission_is_no_damage() -> None:
    assert not is_damage(PermissionError(errno.EACCES, "denied"))
    assert not is_damage(OSError(errno.EMFILE, "too many open files"))
    assert is_damage(FileNotFoundError(errno.ENOENT, "missing"))
    assert is_damage(ValueError())


def test_digest_covers_every_key_and_its_own_name() -> None:
    content = with_digest({"a": 1, "b": {"c": [0.1, "é"]}})
    check_digest(content, "x.json")
    check_digest({name: content[name] for name in ("b", "a", DIGEST_KEY)}, "x.json")
    changes = [
        content | {"a": 2},
        content | {"b": {"c": [0.1, "e"]}},
        content | {"new": None},
        {name: content[name] for name in ("a", DIGEST_KEY)},
        content | {DIGEST_KEY: None},
        {"a": 1, "b": content["b"], "sha257": content[DIGEST_KEY]},
    ]
    for changed in changes:
        with pytest.raises(ValueError, match=r"x\.json was changed"):
            check_digest(changed, "x.json")
    check_digest({"a": 1, "key": "f" * 64}, "of an earlier version")


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
def test_blocks_are_checked_where_they_are_read(size: int) -> None:
    content = np.random.default_rng(size).integers(-128, 128, size, dtype=np.int8)
    expected = block_checksums(bytes_of(content))
    assert len(expected) == -(-size // BLOCK)
    everything = np.array([0]), np.array([size])
    CheckedBlocks(content, expected).check(*everything)
    for at in {0, size // 2, size - 1} if size else ():
        damaged = content.copy()
        damaged[at] ^= 1
        blocks = CheckedBlocks(damaged, expected)
        start, end = at // BLOCK * BLOCK, min(size, (at // BLOCK + 1) * BLOCK)
        damage = np.array([at]), np.array([at + 1])
        for repeats in (1, FEW + 1):
            around = np.array([0, end, 5]), np.array([start, size, 5])
            blocks.check(*(np.repeat(one, repeats) for one in around))
            for ranges in (everything, damage):
                with pytest.raises(ValueError, match=f"byte {start:,}"):
                    blocks.check(*(np.repeat(one, repeats) for one in ranges))


def test_checksum_of_a_row_depends_on_its_key() -> None:
    found = {row_checksum(key, row) for key in (b"a", b"b") for row in (b"1", b"2", b"")}
    assert len(found) == 6

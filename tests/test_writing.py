"""Files that are whole or not there, and links that are not followed."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from xmodal.errors import InUse
from xmodal.writing import atomic_write, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_exception_keeps_the_old_file_and_removes_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for old in (None, b"old"):
        if old is not None:
            path.write_bytes(old)
        with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
            file.write(b"ne")
            raise KeyboardInterrupt
        assert names(tmp_path) == ([] if old is None else ["x"])
    assert path.read_bytes() == b"old"
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["x"]


def test_links_are_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for name in ("x", "x.new"):
        (tmp_path / name).symlink_to(precious)
    write_text(tmp_path / "x", "new")
    os.link(precious, tmp_path / "y.new")  # a hard link
    write_text(tmp_path / "y", "new")
    assert precious.read_text() == "precious"
    assert not (tmp_path / "x").is_symlink() and (tmp_path / "x").read_text() == "new"
    assert names(tmp_path) == ["precious", "x", "y"]


def test_file_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / "x.new"
    left.write_bytes(b"half" * 1000)
    left.chmod(0o600)
    umask = os.umask(0o027)
    try:
        write_json(tmp_path / "x", {"a": 1})
    finally:
        os.umask(umask)
    assert (tmp_path / "x").read_text() == '{\n "a": 1\n}\n'
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_second_writer_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with ThreadPoolExecutor(1) as other, atomic_write(path) as file:
        file.write(b"first")
        with pytest.raises(InUse, match=str(path)):
            other.submit(write_text, path, "second").result()
    assert path.read_bytes() == b"first"


def test_device_is_written_directly(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as other:
        read = other.submit(fifo.read_bytes)
        write_text(fifo, "text")
        assert read.result() == b"text"
    assert names(tmp_path) == ["fifo"] and stat.S_ISFIFO(fifo.stat().st_mode)


ROWS = np.random.default_rng(0).standard_normal((300, 100))


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write(ROWS.tobytes()),
        lambda file: np.save(file, ROWS),
        lambda file: np.savez(file, rows=ROWS),
        lambda file: torch.save({"rows": torch.from_numpy(ROWS)}, file),
        lambda file: pq.write_table(pa.table({"rows": ROWS.ravel()}), file),
        lambda file: Image.fromarray(ROWS.astype(np.uint8)).save(file, "PNG"),
    ],
    ids=["write", "save", "savez", "torch", "parquet", "png"],
)
@pytest.mark.parametrize("room", [0, 5000])
def test_failed_write_is_named(tmp_path: Path, write: Callable[[BinaryIO], Any], room: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError, match="File too large") as raised:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with atomic_write(path) as file:
                write(file)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert raised.value.errno == errno.EFBIG and raised.value.filename == str(path)
    assert path.read_bytes() == b"old" and names(tmp_path) == ["x"]

"""Damaged .mat files, which scipy would crash on, are refused before scipy reads them."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xmodal.data.feature_file import ARRAYS, read_feature_file
from xmodal.data.mat_elements import check_elements
from xmodal.errors import DataError

io = pytest.importorskip("scipy.io", reason="pip install -e '.[mat]'")
NAME = b"image\0\0\0"


def saved(path: Path, **options: bool) -> bytearray:
    """Write a file of two items, and return its bytes."""
    ids = np.array([["a"], ["b"]], object)
    io.savemat(path, {"ids": ids, "image": np.ones((2, 3)), "other": {"a": 1}}, **options)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("compressed", [False, True])
def test_whole_files_are_accepted(tmp_path: Path, compressed: bool) -> None:
    saved(tmp_path / "f.mat", do_compression=compressed)
    check_elements(tmp_path / "f.mat", ARRAYS)
    assert read_feature_file(tmp_path / "f.mat").ids == ["a", "b"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (8, 0x8D),  # type of the values
        (9, 1),
        (12, 8),  # number of the bytes of the values
        (-24, 0xFF),  # number of the bytes of the shape, behind the limit of dimensions
        (-31, 8),  # flags: an imaginary part, which there is not
        (-32, 3),  # class: an object
    ],
)
def test_elements_that_do_not_fit_are_refused(tmp_path: Path, place: int, value: int) -> None:
    content = saved(tmp_path / "f.mat")
    content[content.index(NAME) + place] = value
    (tmp_path / "f.mat").write_bytes(content)
    with pytest.raises(DataError, match="not readable"):
        read_feature_file(tmp_path / "f.mat")


def test_a_flipped_bit_of_a_compressed_array_is_found(tmp_path: Path) -> None:
    content = saved(tmp_path / "f.mat", do_compression=True)
    for place in range(140, len(content), 9):
        changed = content.copy()
        changed[place] ^= 4
        (tmp_path / "f.mat").write_bytes(changed)
        with pytest.raises(DataError, match="not readable"):
            read_feature_file(tmp_path / "f.mat")


def test_damaged_files_end_no_process(tmp_path: Path) -> None:
    """A process of its own, which a crash would end."""
    (tmp_path / "f.mat").write_bytes(saved(tmp_path / "f.mat"))
    program = """
import random, sys
from pathlib import Path
from xmodal.data.feature_file import read_feature_file
from xmodal.errors import DataError
path = Path(sys.argv[1])
content, number = path.read_bytes(), random.Random(0)
for _ in range(500):
    changed = bytearray(content)
    changed[number.randrange(128, len(content))] = number.randrange(256)
    path.write_bytes(changed)
    try:
        read_feature_file(path)
    except DataError:
        pass
"""
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path / "f.mat")])
    assert ran.returncode == 0


def test_big_endian_files_are_checked(tmp_path: Path) -> None:
    header = b"x" * 124 + b"\1\0MI"
    (tmp_path / "f.mat").write_bytes(header + struct.pack(">II", 14, 999))
    with pytest.raises(ValueError, match="beyond its end"):
        check_elements(tmp_path / "f.mat", ARRAYS)

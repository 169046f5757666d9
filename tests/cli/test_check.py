"""xmodal check: sound and damaged local indexes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.index.local import open_folder

Run = Callable[..., Any]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "my.index"
    packed = np.arange(4 * 2, dtype=np.uint8).reshape(4, 2)
    with open_folder(path, bits=16, create=True) as opened:
        opened.add(list("abcd"), image=BinaryCodes(packed, 16), fields=[{"t": "violet"}] * 4)
    return path


def damage(index: Path, content: bytes) -> Path:
    """Change a byte of a stored text; return the file."""
    (file,) = index.glob("segment-*")
    stored = file.read_bytes()
    file.write_bytes(stored.replace(content, bytes([content[0] ^ 1]) + content[1:], 1))
    return file


def test_a_sound_index_is_one_line(xmodal_cli: Run, index: Path) -> None:
    found = xmodal_cli("check", index)
    assert found.status == 0
    assert found.out == f"{index}: 4 documents in 1 segments, no damage\n"
    assert json.loads(xmodal_cli("check", index, "--json").out)["damaged"] == []


def test_damaged_columns_are_named_with_their_file(xmodal_cli: Run, index: Path) -> None:
    file = damage(index, b'{"t"')
    found = xmodal_cli("check", index)
    assert found.status == 2
    assert found.out == f"{file}: column fields.bytes does not match the checksum\n"
    assert "is damaged in 1 columns" in found.err and "index again" in found.err
    as_json = xmodal_cli("check", index, "--json")
    assert as_json.status == 2
    expected = [{"file": str(file), "column": "fields.bytes"}]
    assert json.loads(as_json.out)["damaged"] == expected


def test_only_folders_are_checked(xmodal_cli: Run, tmp_path: Path) -> None:
    found = xmodal_cli("check", "opensearch://localhost:9200/photos")
    assert found.status == 2 and "is not a folder" in found.err
    assert xmodal_cli("check", tmp_path / "none").status == 2

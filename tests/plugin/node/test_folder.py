"""The lock of a development node's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xmodal.errors import ConfigError, IndexFailure
from xmodal_opensearch.node.folder import MARK, claim, note


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    lock = claim(tmp_path / "node", "3.6.0")
    note(lock, "3.6.0", 42, "http://127.0.0.1:1")
    with pytest.raises(IndexFailure, match="pid 42"):
        claim(tmp_path / "node", "3.6.0")
    os.close(lock)
    os.close(claim(tmp_path / "node", "3.6.0"))


def test_a_mark_that_is_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "node"
    precious.write_text("{}")
    folder.mkdir()
    (folder / MARK).symlink_to(precious)
    with pytest.raises(ConfigError, match="symbolic link"):
        claim(folder, "3.6.0")
    assert precious.read_text() == "{}"

"""Lock and node file of a development node's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xmodal.errors import ConfigError, IndexFailure
from xmodal_opensearch.node.folder import NODE_FILE, lock_folder, write_node_file


def test_lock_folder_refuses_a_locked_folder(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path / "node", "3.6.0")
    write_node_file(lock, "3.6.0", 42, "http://127.0.0.1:1")
    with pytest.raises(IndexFailure, match="pid 42"):
        lock_folder(tmp_path / "node", "3.6.0")
    os.close(lock)
    os.close(lock_folder(tmp_path / "node", "3.6.0"))


def test_lock_folder_does_not_follow_a_symbolic_link(tmp_path: Path) -> None:
    target, folder = tmp_path / "target", tmp_path / "node"
    target.write_text("{}")
    folder.mkdir()
    (folder / NODE_FILE).symlink_to(target)
    with pytest.raises(ConfigError, match="symbolic link"):
        lock_folder(folder, "3.6.0")
    assert target.read_text() == "{}"


def test_lock_folder_opens_data_of_an_older_version_for_an_upgrade_only(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path / "node", "3.10.0")
    write_node_file(lock, "3.10.0", 42, "http://127.0.0.1:1")
    os.close(lock)
    for version, upgrade in (("3.11.0", False), ("3.9.0", False), ("3.9.0", True)):
        with pytest.raises(ConfigError, match=r"has data of OpenSearch 3\.10\.0"):
            lock_folder(tmp_path / "node", version, upgrade)
    os.close(lock_folder(tmp_path / "node", "3.11.0", upgrade=True))

"""Folders: restart, files of other programs, kinds, atomic writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xmodal.encoders.folder import (
    CHECKPOINT,
    COMPRESSOR,
    CONFIG,
    ONNX_ENCODER,
    TORCH_ENCODER,
    WEIGHTS,
    FolderFormat,
    atomic_write,
    prepare_folder,
    read_config,
)
from xmodal.errors import ConfigError, ModelError


def files(folder: Path, *names: str) -> Path:
    """Write files of these names."""
    for name in names:
        (folder / name).write_text("{}")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_prepare_folder_creates_a_folder(tmp_path: Path) -> None:
    assert not prepare_folder(tmp_path / "deep" / "x.model", TORCH_ENCODER, restart=False)
    assert (tmp_path / "deep" / "x.model").is_dir()


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("name", ["notes.txt", "notes.txt.new"])
def test_prepare_folder_keeps_files_of_other_programs(
    tmp_path: Path, name: str, restart: bool
) -> None:
    with pytest.raises(ConfigError, match=name):
        prepare_folder(files(tmp_path, name), TORCH_ENCODER, restart)
    assert names(tmp_path) == {name}


def test_prepare_folder_without_restart_does_not_replace_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=WEIGHTS):
        prepare_folder(files(tmp_path, WEIGHTS), TORCH_ENCODER, restart=False)


def test_prepare_folder_accepts_temporary_files_of_a_killed_run(tmp_path: Path) -> None:
    assert not prepare_folder(files(tmp_path, f"{CHECKPOINT}.new"), TORCH_ENCODER, restart=False)


def test_prepare_folder_detects_stopped_and_finished_runs(tmp_path: Path) -> None:
    files(tmp_path, CHECKPOINT, "notes.txt")
    assert not prepare_folder(tmp_path, TORCH_ENCODER, restart=False)
    assert prepare_folder(files(tmp_path, CONFIG), TORCH_ENCODER, restart=False)
    assert names(tmp_path) == {CHECKPOINT, CONFIG, "notes.txt"}


def test_prepare_folder_with_restart_removes_the_files_of_the_format(tmp_path: Path) -> None:
    files(tmp_path, CONFIG, WEIGHTS, "synthetic-010.png", f"{CONFIG}.new")
    with pytest.raises(ConfigError, match=r"synthetic-010\.png"):
        prepare_folder(tmp_path, COMPRESSOR, restart=True)
    assert not prepare_folder(tmp_path, TORCH_ENCODER, restart=True)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("expected", [TORCH_ENCODER, ONNX_ENCODER])
def test_read_config_of_another_kind_raises(tmp_path: Path, expected: FolderFormat) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"kind": COMPRESSOR.kind, "format": 1}))
    with pytest.raises(ModelError, match="'compressor'"):
        read_config(tmp_path, expected)


def test_atomic_write_keeps_the_old_file_after_an_exception(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"

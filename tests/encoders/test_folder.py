"""Folders: runs, restarts, files of other programs, locks, kinds."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xmodal.encoders.folder import (
    CHECKPOINT,
    COMPRESSOR,
    CONFIG,
    HISTORY,
    ONNX_ENCODER,
    TORCH_ENCODER,
    WEIGHTS,
    FolderFormat,
    open_run,
    read_config,
    replaced_folder,
)
from xmodal.errors import ConfigError, InUse, ModelError
from xmodal.writing import LOCK, sibling


def files(folder: Path, *names: str) -> Path:
    """Write files of these names."""
    for name in names:
        (folder / name).write_text("{}")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def restarted(folder: Path, name: str = WEIGHTS) -> None:
    """Complete a restart that writes a file, config.json, and a checkpoint."""
    with open_run(folder, TORCH_ENCODER, restart=True) as run:
        assert run.work is not None
        for file in (name, CONFIG, CHECKPOINT):
            (run.work / file).write_text("new")
        run.complete()


def test_run_creates_a_folder_and_removes_it_after_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "x.model"
    with (
        pytest.raises(ZeroDivisionError),
        open_run(folder, TORCH_ENCODER, restart=False) as run,
    ):
        assert run.work == folder and folder.is_dir() and not run.finished
        raise ZeroDivisionError
    assert not folder.exists()


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("name", ["notes.txt", "notes.txt.new", "portable.txt"])
def test_run_keeps_files_of_other_programs(tmp_path: Path, name: str, restart: bool) -> None:
    files(tmp_path, name)
    with pytest.raises(ConfigError, match=name), open_run(tmp_path, TORCH_ENCODER, restart):
        pass
    assert names(tmp_path) == {name}


def test_run_without_restart_does_not_replace_weights(tmp_path: Path) -> None:
    files(tmp_path, WEIGHTS)
    with (
        pytest.raises(ConfigError, match=WEIGHTS),
        open_run(tmp_path, TORCH_ENCODER, restart=False),
    ):
        pass


def test_run_removes_temporary_files_of_a_killed_run(tmp_path: Path) -> None:
    files(tmp_path, f"{CHECKPOINT}.new", f"{CONFIG}.new", LOCK, WEIGHTS)  # killed while it saved
    with open_run(tmp_path, TORCH_ENCODER, restart=False) as run:
        assert not run.finished
    assert names(tmp_path) == {WEIGHTS}


def test_run_detects_stopped_and_finished_runs(tmp_path: Path) -> None:
    files(tmp_path, CHECKPOINT, "notes.txt")
    with open_run(tmp_path, TORCH_ENCODER, restart=False) as run:
        assert not run.finished
    files(tmp_path, CONFIG)
    with open_run(tmp_path, TORCH_ENCODER, restart=False) as run:
        assert run.finished
    assert names(tmp_path) == {CONFIG, "notes.txt"}  # nothing reads the checkpoint


def test_restart_replaces_the_folder_when_it_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "x.model"
    folder.mkdir()
    files(folder, CONFIG, WEIGHTS, "synthetic-010.png", f"{CONFIG}.new")
    with (
        pytest.raises(ConfigError, match=r"synthetic-010\.png"),
        open_run(folder, COMPRESSOR, restart=True),
    ):
        pass
    for error in (ConfigError, KeyboardInterrupt):
        with pytest.raises(error), open_run(folder, TORCH_ENCODER, restart=True) as run:
            assert run.work is not None and run.is_restart
            (run.work / WEIGHTS).write_text("half")
            raise error
        assert names(folder) == {CONFIG, WEIGHTS, "synthetic-010.png"}
        assert names(tmp_path) == {"x.model"}
    restarted(folder)
    assert names(folder) == {CONFIG, WEIGHTS} and (folder / CONFIG).read_text() == "new"
    assert names(tmp_path) == {"x.model"}


def test_stopped_restart_keeps_its_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "x.model"
    folder.mkdir()
    files(folder, CONFIG)
    with (
        pytest.raises(KeyboardInterrupt),
        open_run(folder, TORCH_ENCODER, restart=True) as run,
    ):
        assert run.work is not None
        (run.work / CHECKPOINT).write_text("epoch 3")
        raise KeyboardInterrupt
    with open_run(folder, TORCH_ENCODER, restart=False) as run:
        assert run.finished
    with open_run(folder, TORCH_ENCODER, restart=True) as run:
        assert run.work is not None and (run.work / CHECKPOINT).read_text() == "epoch 3"
        run.clear()
        assert names(run.work) == {LOCK}


def test_restart_through_a_link_replaces_its_target(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    files(target, CONFIG)
    restarted(link)
    assert link.is_symlink() and names(target) == {CONFIG, WEIGHTS}
    assert names(tmp_path) == {"target", "link"}


@pytest.mark.parametrize("way", ["rename", "files"])
def test_restart_where_folders_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    folder = tmp_path / "x.model"
    folder.mkdir()
    files(folder, CONFIG, HISTORY)
    if way == "rename":  # another system or file system
        monkeypatch.setattr("xmodal.operating_system.exchange", lambda first, second: False)
    else:
        monkeypatch.setattr(Path, "is_mount", lambda path: path == folder)
    restarted(folder)
    assert names(folder) == {CONFIG, WEIGHTS} and names(tmp_path) == {"x.model"}
    assert (folder / CONFIG).read_text() == "new"


def test_folder_between_two_renames_is_restored(tmp_path: Path) -> None:
    folder = tmp_path / "x.model"
    old = sibling(folder, ".old")
    old.mkdir()
    files(old, CONFIG)
    with open_run(folder, TORCH_ENCODER, restart=False) as run:
        assert run.finished
    assert names(tmp_path) == {"x.model"}


def test_temporary_folder_with_other_files_or_a_link_is_kept(tmp_path: Path) -> None:
    folder, work, mine = tmp_path / "x", sibling(tmp_path / "x", ".new"), tmp_path / "mine"
    for path in (folder, work, mine):
        path.mkdir()
    files(folder, CONFIG)
    files(work, "notes.txt")
    files(mine, WEIGHTS)
    for found in (r"notes\.txt", "symbolic link"):
        with pytest.raises(ConfigError, match=found), replaced_folder(folder, TORCH_ENCODER):
            pass
        assert names(folder) == {CONFIG} and names(mine) == {WEIGHTS}
        if work.is_dir() and not work.is_symlink():
            (work / "notes.txt").unlink()
            work.rmdir()
            work.symlink_to(mine)


def test_second_run_in_a_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    with open_run(files(folder, CONFIG), TORCH_ENCODER, restart=True) as run:
        for restart in (True, False):
            with (
                ThreadPoolExecutor(1) as other,
                pytest.raises(InUse, match=str(folder)),
            ):
                other.submit(_open_and_close, folder, restart).result()
        run.complete()
        with ThreadPoolExecutor(1) as other, pytest.raises(InUse, match=str(folder)):
            other.submit(_open_and_close, folder, True).result()
    _open_and_close(folder, True)


def _open_and_close(folder: Path, restart: bool) -> None:
    with open_run(folder, TORCH_ENCODER, restart):
        pass


@pytest.mark.parametrize("expected", [TORCH_ENCODER, ONNX_ENCODER])
def test_read_config_of_another_kind_raises(tmp_path: Path, expected: FolderFormat) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"kind": COMPRESSOR.kind, "format": 1}))
    with pytest.raises(ModelError, match="'compressor'"):
        read_config(tmp_path, expected)

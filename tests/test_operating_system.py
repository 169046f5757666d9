"""Files, locks and limits where the system has no ``fcntl``, ``resource`` or folder descriptors."""

from __future__ import annotations

import errno
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.like_windows import like_windows

from xmodal import operating_system
from xmodal.codes import BinaryCodes
from xmodal.errors import InUse
from xmodal.index.contract import open_index
from xmodal.operating_system import file_path, replace, sync_folder
from xmodal.writing import atomic_write, check_target, lock_folder, replace_folder, write_text

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    like_windows(monkeypatch)


def test_the_simulation_refuses_what_windows_refuses(windows: None, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 5000)
    mapped = np.memmap(path, np.uint8, "r")
    for refused in (path.unlink, lambda: os.replace(path, tmp_path / "y")):
        with pytest.raises(PermissionError):
            refused()
    with pytest.raises(PermissionError):
        os.open(tmp_path, os.O_RDONLY)
    assert mapped[0] == ord("x")
    del mapped
    path.unlink()


def test_files_are_replaced_after_they_are_closed(windows: None, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for text in ("old", "new"):
        check_target(path)
        write_text(path, text)
        assert path.read_text("utf-8") == text and os.listdir(tmp_path) == ["x"]
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"ne")
        raise KeyboardInterrupt
    assert path.read_text("utf-8") == "new" and os.listdir(tmp_path) == ["x"]


def test_second_writer_is_refused_and_left_files_are_replaced(
    windows: None, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    (tmp_path / "x.new").write_bytes(b"left by a killed process")
    with ThreadPoolExecutor(1) as other, atomic_write(path) as file:
        file.write(b"first")
        with pytest.raises(InUse, match="another process writes"):
            other.submit(write_text, path, "second").result()
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["x"]


def test_folder_with_its_lock_is_replaced(windows: None, tmp_path: Path) -> None:
    folder, new = tmp_path / "model", tmp_path / ".model.new"
    for path, text in ((folder, "old"), (new, "new")):
        path.mkdir()
        (path / "config.json").write_text(text, "utf-8")
    with lock_folder(folder), ThreadPoolExecutor(1) as other:

        def lock_again() -> None:
            with lock_folder(folder):
                pass

        with pytest.raises(InUse):
            other.submit(lock_again).result()
        replace_folder(new, folder, lambda name: name == "config.json")
    assert (folder / "config.json").read_text("utf-8") == "new"
    assert os.listdir(folder) == ["config.json"]


def test_index_is_saved_while_another_one_reads_it(windows: None, tmp_path: Path) -> None:
    folder = tmp_path / "my.index"
    reader = None
    for number in range(3):  # each reader maps files that later saves would remove
        index = open_index(str(folder), bits=64, create=True)
        index.add([f"{number}"], image=BinaryCodes.from_hex([f"{number:016x}"]))
        index.close()
        code = BinaryCodes.from_hex([f"{number:016x}"])
        if reader is not None:
            assert len(reader.search(code, 5, target="image")[0]) == number
        reader = open_index(str(folder))
        hits = reader.search(code, 5, target="image")[0]
        assert hits[0].id == f"{number}" and len(hits) == number + 1
    del reader
    index = open_index(str(folder))
    index.delete(["0"])
    index.close()
    assert len(open_index(str(folder))) == 2


def test_limits_and_users_that_do_not_exist(windows: None, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x", "utf-8")
    (tmp_path / "token").chmod(0o644)
    assert not operating_system.can_others_read((tmp_path / "token").stat(), shared=0o040)
    assert operating_system.max_open_files() == 2**20
    assert not operating_system.has_memory_limit() and not operating_system.is_root()
    assert operating_system.processors() == os.cpu_count()


def test_file_that_is_read_is_replaced_when_it_is_closed(
    windows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, path = tmp_path / "new", tmp_path / "x"
    new.write_text("new", "utf-8")
    path.write_text("old", "utf-8")
    reader = path.open("rb")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            reader.close()

    monkeypatch.setattr("time.sleep", pause)
    replace(new, path)
    assert path.read_text("utf-8") == "new" and len(pauses) == 3


@pytest.mark.parametrize(("number", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_folder_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: bool
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if raised:
        with pytest.raises(OSError):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("my.index", "my.index"),
        ("file://my.index", "my.index"),
        ("file:///srv/my.index", "/srv/my.index"),
        (r"C:\photos\my.index", r"C:\photos\my.index"),
        ("C:/photos/a.jpg", "C:/photos/a.jpg"),
        (r"\\server\share\my.index", r"\\server\share\my.index"),
    ],
)
def test_paths_and_addresses_of_files(address: str, path: str) -> None:
    assert file_path(address) == path

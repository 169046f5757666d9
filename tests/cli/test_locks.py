"""Locks: a second process that writes the same folder gets one line; links are not followed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import CommandResult

from xmodal.index.contract import open_index
from xmodal.index.origins import ListedIndex

Run = Callable[..., CommandResult]

HOLD = """
import sys
from pathlib import Path
from xmodal.index.folder import lock_index
from xmodal.writing import lock_folder
with (lock_index if sys.argv[2] == "index" else lock_folder)(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""
ANY_LINE = re.compile(r"(?!xmodal: ).*")


@contextmanager
def held(folder: Path, kind: str = "model") -> Iterator[None]:
    """Let another process hold the lock of a folder."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", HOLD, str(folder), kind]
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"locked\n"
        yield
        process.stdin.close()


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("restart", [[], ["--restart"]])
def test_second_writer_of_a_model_is_refused(
    xmodal_cli: Run, model: Path, photos_folder: Path, tmp_path: Path, restart: list[str]
) -> None:
    np.save(tmp_path / "f.npy", np.random.default_rng(0).standard_normal((20, 8)))
    shutil.copytree(model, tmp_path / "m")
    small = ("--image-backbone", "small-cnn", "--text-backbone", "words")
    for folder, command in {
        tmp_path / "m": ("train", photos_folder, *small),
        tmp_path / "c": ("compress", tmp_path / "f.npy"),
    }.items():
        with held(folder):
            before = files(folder)
            done = xmodal_cli(*command, "--out", folder, *restart)
            assert f"another process writes {folder}" in done.error_line(ANY_LINE)
            assert files(folder) == before


def test_second_writer_of_an_export_is_refused(
    xmodal_cli: Run, portable_path: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x"
    shutil.copytree(portable_path, out)
    for busy in (out, tmp_path / ".x.new"):
        with held(busy):
            done = xmodal_cli("export", "--model", model, "--onnx", out, "--restart")
        assert f"another process writes {out}" in done.error_line(ANY_LINE)
    shutil.copytree(model, tmp_path / "m")
    with held(tmp_path / "m"):
        done = xmodal_cli("export", "--model", tmp_path / "m")
    assert f"another process writes {tmp_path / 'm'}" in done.error_line(ANY_LINE)


def test_second_writer_of_an_index_is_refused_before_it_encodes(
    xmodal_cli: Run,
    portable_path: Path,
    photos_folder: Path,
    index_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    default = Path(".xmodal", "index")
    shutil.copytree(index_path, tmp_path / "i")
    for folder in (tmp_path / "i", tmp_path / "new", default):
        with held(folder, "index"):
            before = files(folder)
            command = ("index", photos_folder, "--model", portable_path, "--index", folder)
            done = xmodal_cli(*command, "--cache", tmp_path / "cache")
            assert f"another process writes {folder}" in done.error_line(ANY_LINE)
            assert files(folder) == before and not (tmp_path / "cache").exists()
    opened = open_index(index_path)
    assert isinstance(opened, ListedIndex)
    with held(tmp_path / "i", "index"):
        name = next(iter(opened.entries())).id
        done = xmodal_cli("delete", tmp_path / "i", name)
        assert done.status == 2 and "another process writes" in done.err


@pytest.mark.parametrize(
    "name", [".lock", "config.json.new", "codes.npy.new", "weights.safetensors"]
)
def test_links_in_a_folder_are_not_followed(xmodal_cli: Run, tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "f.npy", np.random.default_rng(0).standard_normal((20, 8)))
    precious = tmp_path / "precious"
    precious.write_text("precious")
    command = ("compress", tmp_path / "f.npy", "--bits", 8, "--set", "epochs=1")
    folder = tmp_path / "c"
    assert xmodal_cli(*command, "--out", folder).status == 0
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(precious)
    done = xmodal_cli(*command, "--out", folder, "--seed", 1, "--restart")
    assert done.status == 0, done
    assert precious.read_text() == "precious"


def test_folder_that_is_given_as_a_link_is_written(xmodal_cli: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.random.default_rng(0).standard_normal((20, 8)))
    (tmp_path / "target").mkdir()
    (tmp_path / "c").symlink_to("target")
    command = ("compress", tmp_path / "f.npy", "--bits", 8, "--set", "epochs=1")
    for more in ([], ["--seed", 1, "--restart"]):
        assert xmodal_cli(*command, "--out", tmp_path / "c", *more).status == 0
        assert (tmp_path / "c").is_symlink() and (tmp_path / "target" / "codes.npy").is_file()

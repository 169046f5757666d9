"""Full disk: the old result stays whole, one line, a rerun with room works."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import CommandResult

Run = Callable[..., CommandResult]

ROOT = Path(__file__).resolve().parents[2]
ANY_LINE = re.compile(r"(?!xmodal: ).*")


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file become larger than ``size`` bytes; the system refuses the write."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, except locks of indexes."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", ["compress", "index", "encode", "html", "png"])
def test_file_that_cannot_be_written_keeps_the_old_one(
    xmodal_cli: Run,
    portable_path: Path,
    index_path: Path,
    photos_folder: Path,
    cache: Path,
    tmp_path: Path,
    name: str,
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    out.mkdir()
    shutil.copytree(photos_folder, source)
    np.save(tmp_path / "f.npy", np.random.default_rng(0).standard_normal((200, 16)))
    model = ("--model", portable_path)
    search = ("search", "red", *model, "--index", index_path, "--gallery")
    compress = ("compress", tmp_path / "f.npy", "--bits", 16, "--set", "epochs=1")
    command = {
        "compress": (*compress, "--out", out / "c"),
        "index": ("index", source, *model, "--index", out / "i", "--cache", cache),
        "encode": ("encode", source, *model, "--out", out / "x.npz", "--cache", cache),
        "html": (*search, out / "g.html"),
        "png": (*search, out / "g.png"),
    }[name]
    assert xmodal_cli(*command).status == 0
    before = files(out)
    if name == "compress":
        command = (*command, "--seed", 1, "--restart")
    if name == "index":  # a new caption
        lines = (source / "metadata.jsonl").read_text().splitlines(keepends=True)
        lines[0] = lines[0].replace('"text": "', '"text": "new ')
        (source / "metadata.jsonl").write_text("".join(lines))
    for size in (0, 100, 1000):
        with file_limit(size):
            done = xmodal_cli(*command)
        # The feature cache is the first file that index and encode write.
        reason = "File too large|feature cache .* free space"
        assert re.search(reason, done.error_line(ANY_LINE)), size
        assert files(out) == before, size
    assert xmodal_cli(*command).status == 0


def can_mount() -> bool:
    """Whether this system lets a process mount a file system in a namespace of its own."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *users, "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_full_file_system_keeps_the_old_result() -> None:
    if not can_mount():
        pytest.skip("this system mounts no file system without the rights of an administrator")
    program = [sys.executable, ROOT / "benchmarks" / "full_disk.py", "--sizes", "2"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines()[1:] if not line.startswith(" ")]
    assert len(rows) == 7 and all(row.split()[-1] == "0" for row in rows)

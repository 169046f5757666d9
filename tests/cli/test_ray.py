"""xmodal encode --engine ray on processes of this machine, some of which are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import CommandResult

Run = Callable[..., CommandResult]
COMMAND = [sys.executable, "-c", "from xmodal.cli import main; main()"]
WAIT = 300
"""Seconds after which a test fails; on an idle machine a run takes about 15."""


@pytest.fixture
def table(photos_folder: Path, tmp_path: Path) -> Path:
    """A table of pictures of which one is damaged and one is missing, with enough for 6 chunks."""
    pictures = sorted(photos_folder.glob("**/*.png"))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    path = tmp_path / "items.jsonl"
    with open(path, "w") as file:
        for n in range(1800):
            row = {"id": str(n), "image": str(pictures[n % len(pictures)]), "text": f"circle {n}"}
            file.write(json.dumps(row) + "\n")
        for name in ("bad.png", "absent.png"):
            file.write(json.dumps({"id": name, "image": name, "text": name}) + "\n")
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of Ray in /proc")
def test_killed_workers_and_a_killed_command_leave_the_parts_of_one_process(
    xmodal_cli: Run, model: Path, table: Path, tmp_path: Path
) -> None:
    alone, out = tmp_path / "alone", tmp_path / "parts"
    encode = ["encode", str(table), "--model", str(model), "--out"]
    for number in (1, 2):
        assert xmodal_cli(*encode, alone, "--shard", f"{number}/2").status == 0
    on_ray = [*COMMAND, *encode, str(out), "--engine", "ray", "--workers", "2", "--parts", "2"]
    errors = tmp_path / "errors.txt"
    with open(errors, "w") as file, subprocess.Popen(on_ray, stderr=file) as command:
        while not any(out.glob("*.parquet")):
            assert command.poll() is None, errors.read_text()
            time.sleep(0.02)
        command.kill()
    assert len(list(out.glob("*.parquet"))) == 1
    with (
        open(errors, "w") as file,
        subprocess.Popen([*on_ray, "--json"], stdout=subprocess.PIPE, stderr=file) as command,
    ):
        _kill_one_worker(command)
        output, _ = command.communicate(timeout=WAIT)
    assert command.returncode == 0, errors.read_text()
    first, second = map(json.loads, output.decode().splitlines())  # no line of Ray between
    assert first["skipped"] and not second["skipped"]
    assert "1 x picture missing: absent.png" in errors.read_text()
    for part in alone.iterdir():
        assert (out / part.name).read_bytes() == part.read_bytes()
    assert len(list(out.iterdir())) == 2


def _kill_one_worker(command: subprocess.Popen[bytes]) -> None:
    """Kill the first process that encodes, as soon as it runs."""
    started = time.monotonic()
    while time.monotonic() - started < WAIT and command.poll() is None:
        for pid in _below(command.pid):
            with suppress(OSError):  # it has ended
                if b"ray::MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    return
        time.sleep(0.02)
    raise AssertionError("no process of Ray encoded")


def _below(pid: int) -> Iterator[int]:
    """Yield the processes that a process started, directly or not, and that still run."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = [int(one) for one in children.read_text().split()]
        except OSError:
            continue
        for child in found:
            yield child
            yield from _below(child)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--engine", "ray", "--features", "f.npz"], "--features"),
        (["--engine", "ray", "--cache", "c"], "--cache"),
        (["--engine", "ray", "--parts", "2", "--shard", "1/2"], "--shard"),
        (["--engine", "ray", "--out", "all.parquet"], "one file for 16 parts"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
        (["--engine", "ray", "--provider", "directml"], "no portable encoder"),
        (["--workers", "2"], "--engine ray"),
    ],
)
def test_a_mistake_is_one_line(
    xmodal_cli: Run, model: Path, table: Path, tmp_path: Path, options: list[str], expected: str
) -> None:
    out = ["--out", tmp_path / "parts", *options]
    result = xmodal_cli("encode", table, "--model", model, *out)
    (line,) = [line for line in result.err.splitlines() if line.startswith("xmodal: ")]
    assert result.status == 2 and expected in line and "Traceback" not in result.err


def test_without_ray_its_extra_is_named(
    xmodal_cli: Run, model: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("xmodal.errors._is_installed", lambda package: package != "ray")
    arguments = ("--model", model, "--out", tmp_path / "p", "--engine", "ray")
    result = xmodal_cli("encode", table, *arguments)
    assert result.status == 2 and "[ray]" in result.err and result.err.count("\n") == 1

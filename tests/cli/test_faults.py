"""Faults of the machine: one line each, the documented exit status, no temporary files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from xmodal.cli.commands import commands
from xmodal.cli.exit import error_line, run
from xmodal.errors import ConfigError, DataError, is_out_of_memory
from xmodal.retrieval.query import Query

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import click
from xmodal.cli.start import start

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of shells ignore SIGINT

def result():
    from xmodal.cli.output import info, print_line
    info("progress")
    print_line("result")

def allocate():
    bytearray(1 << 40)

def crash():
    os.abort()

def write():
    from xmodal.writing import atomic_write
    with atomic_write(Path("x")) as file:
        file.write(b"half")
        print("ready", flush=True)
        time.sleep(60)

def folder():
    os.mkdir("d")
    os.chdir("d")
    os.rmdir("../d")
    Path("x").resolve().read_bytes()

command = click.Command("x", callback=globals()[sys.argv.pop(1)])
start(lambda: command)
"""


def run_program(
    name: str, *, shell: str = "", options: Sequence[str] = (), cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of PROGRAM; ``shell``: redirections of its streams, after ``ulimit``."""
    before, _, after = shell.rpartition(";")
    line = f'{before or ":"}; exec "$@" {after}'
    command = ["sh", "-c", line, "sh", sys.executable, *options, "-c", PROGRAM, name]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_closed_streams() -> None:
    done = run_program("result", shell=">&-")
    assert done.returncode == 2
    assert done.stderr == "progress\nxmodal: standard output: Bad file descriptor\n"
    done = run_program("result", shell="2>&-")
    assert (done.returncode, done.stdout) == (0, "result\n")
    done = run_program("result", shell="<&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "result\n", "progress\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_full_standard_streams() -> None:
    done = run_program("result", shell="> /dev/full")
    assert done.returncode == 2
    assert "standard output: No space left on device" in done.stderr.splitlines()[1]
    done = run_program("result", shell="2> /dev/full")
    assert (done.returncode, done.stdout) == (0, "result\n")


def test_reader_that_closes_the_output_of_help() -> None:
    command = [sys.executable, "-c", "from xmodal.cli import main; main()", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
@pytest.mark.parametrize("name", ["allocate", "crash"])
def test_too_little_memory_is_one_line(name: str) -> None:
    done = run_program(name, shell="ulimit -v 3000000;")
    assert done.returncode == 2
    assert "too little memory" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
def test_too_little_memory_for_imports_is_one_line() -> None:
    for kilobytes in (40_000, 90_000, 200_000):
        done = run_program("result", shell=f"ulimit -v {kilobytes};")
        assert done.returncode == 2 or done.stdout == "result\n", kilobytes
        assert done.returncode == 0 or "too little memory" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr, kilobytes


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_removes_temporary_files(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    command = [sys.executable, "-c", PROGRAM, "write"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    before = signal.signal(number, signal.SIG_DFL)  # not ignored, as below nohup
    try:
        process = subprocess.Popen(command, cwd=tmp_path, **pipes)  # type: ignore[call-overload]
    finally:
        signal.signal(number, before)
    with process:
        assert process.stdout.readline() == b"ready\n"
        assert [path.name for path in tmp_path.iterdir()] == ["x.new"]
        process.send_signal(number)
        _, error = process.communicate()
    assert process.returncode == status
    assert error.strip() == b"xmodal: stopped; run the same command again to continue"
    assert list(tmp_path.iterdir()) == []


def test_removed_working_folder_is_named(tmp_path: Path) -> None:
    done = run_program("folder", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "xmodal: the working folder was removed: change to another one\n"


def chained(error: Exception, cause: BaseException) -> Exception:
    error.__context__ = cause
    return error


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.npz")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FULL, "x.npz: No space left on device: free space"),
        (chained(RuntimeError("unexpected pos 64 vs 0"), FULL), "x.npz: No space left"),
        (OSError(errno.ENOSPC, "Error writing bytes. Detail: [errno 28]"), "No space left on"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "m"), "m: Permission denied"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "m"), "m: Read-only file system"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a"), "ulimit -n"),
        (MemoryError(), "too little memory"),
        (RuntimeError("std::bad_alloc"), "too little memory"),
        (ImportError("x.so: failed to map segment from shared object"), "too little memory"),
        (chained(OSError("could not load a library"), MemoryError()), "too little memory"),
        (RuntimeError("can't start new thread"), "too little memory"),
        (DataError("nothing there"), "nothing there"),
        (OSError("two\nlines"), "two lines"),
    ],
)
def test_line_of_an_error(error: Exception, line: str) -> None:
    found = error_line(error)
    assert found is not None and line in found and "\n" not in found


def test_error_of_the_program_has_another_status_than_no_match(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise KeyError("unexpected")

    assert error_line(KeyError("out of memory of the author")) is not None
    assert not is_out_of_memory(KeyError("unexpected"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["x"])
        run(lambda: click.Command("x", callback=fail))  # type: ignore[arg-type, return-value]
    assert exit_.value.code == 2 and "KeyError" in capsys.readouterr().err


def test_help_has_no_characters_that_a_terminal_may_lack() -> None:
    with click.Context(commands, info_name="xmodal") as parent:
        assert commands.get_help(parent).isascii()
        for name, command in commands.commands.items():
            with click.Context(command, info_name=name, parent=parent) as context:
                assert command.get_help(context).isascii(), name


def test_text_that_is_not_utf8_is_refused() -> None:
    for text in ("caf\udce9", "\ud800"):
        with pytest.raises(ConfigError, match="not valid UTF-8"):
            Query(text=text).check()
        with pytest.raises(ConfigError, match="not valid UTF-8"):
            Query(text="red", not_text=(text,)).check()

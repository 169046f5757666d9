"""Kill at each write of a restart: the folder has the old result or the new one, both whole."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from conftest import CommandResult

Run = Callable[..., CommandResult]

EVENTS = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree", "ctypes.dlsym")
SMALL = (
    *("--image-backbone", "small-cnn", "--text-backbone", "words", "--bits", "16", "--no-report"),
    *("--set", "hidden=16", "--set", "epochs=1", "--set", "batch=32", "--label-share", "0"),
)
Check = Callable[[Path], str]


def is_write(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether an audit event is a change of a folder, or opens a file for writing."""
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    return event in EVENTS


def killed_before_write(number: int | None, command: list[str]) -> bool:
    """Run a command in a fork that kills itself before its write ``number``; whether it did."""
    child = os.fork()
    if child == 0:  # shares the imports of this process
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        numbers = count()

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            if is_write(event, arguments) and next(numbers) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        sys.argv = ["xmodal", *command]
        from xmodal.cli import main

        try:
            main()
        except SystemExit as exit_:
            os._exit(int(exit_.code or 0))
        os._exit(70)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0


def codes_in(folder: Path) -> str:
    """Load a compressor with its codes; return its fingerprint."""
    from xmodal.encoders.compressor import Compressor, read_codes

    compressor = Compressor.load(folder)
    assert len(read_codes(folder)) == 120
    return compressor.fingerprint


def encoder_in(folder: Path) -> str:
    """Load an encoder; return its fingerprint."""
    from xmodal.encoders.torch_encoder import TrainedEncoder

    return TrainedEncoder.load(folder).fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compress", "train"])
def test_killed_restart_leaves_the_old_or_the_new_result(
    xmodal_cli: Run, photos_folder: Path, cache: Path, tmp_path: Path, name: str
) -> None:
    out, base = tmp_path / "out", tmp_path / "base"
    np.save(tmp_path / "f.npy", np.random.default_rng(0).standard_normal((120, 16)))
    out.mkdir()
    result = out / "r"
    command, check, step = {
        "compress": (
            ["compress", tmp_path / "f.npy", "--bits", "16", "--set", "epochs=1"],
            codes_in,
            1,
        ),
        "train": (["train", photos_folder, "--cache", cache, *SMALL], encoder_in, 4),
    }[name]
    arguments = [str(one) for one in (*command, "--out", result)]
    assert xmodal_cli(*arguments).status == 0
    old, names = check(result), {path.name for path in result.iterdir()}
    shutil.copytree(out, base)
    restart = [*arguments, "--seed", "1", "--restart"]
    assert not killed_before_write(None, restart)
    new, seen = check(result), set()
    assert new != old
    for number in count(0, step):
        shutil.rmtree(out)
        shutil.copytree(base, out)
        if not killed_before_write(number, restart):
            break
        seen.add(check(result))
        assert seen <= {old, new}, number
        assert not killed_before_write(None, restart)
        assert check(result) == new, number
        assert {path.name for path in result.iterdir()} == names, number
        assert [path.name for path in out.iterdir()] == ["r"], number
    assert number > 10 and seen == {old, new}

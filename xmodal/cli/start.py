"""Start of a command: standard streams that are closed, limits of memory, errors of imports.

Only the standard library is imported before these are dealt with.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from xmodal.errors import is_out_of_memory
from xmodal.operating_system import has_memory_limit

if TYPE_CHECKING:
    from click import Group

TOO_LITTLE_MEMORY = "too little memory: end other programs, or raise the limit (ulimit -v)"


def start(commands: Callable[[], Group]) -> NoReturn:
    """Run the command that ``sys.argv`` names and exit; ``commands`` imports the commands.

    Where the address space is limited (``ulimit -v``), a library may end the process: the command
    runs in a child process, for which this one prints the reason.
    """
    _open_streams()
    if sys.platform == "win32" or not has_memory_limit():
        _run(commands)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            _run(commands)
        except SystemExit:
            os.write(write, b"ended")
            raise
    os.close(write)
    _exit_like(child, read)


def _run(commands: Callable[[], Group]) -> NoReturn:
    try:
        from xmodal.cli.exit import run
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _exit_without_memory()
    run(commands)


def _open_streams() -> None:
    """Open standard streams that the caller closed; else files would get their descriptors.

    A closed standard output stays one that cannot be written: its descriptor can only be read.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))


def _exit_like(child: int, pipe: int) -> NoReturn:
    """Wait for a child process and exit with its status; print a line if it did not end itself."""
    import signal

    assert sys.platform != "win32"  # which has no limits of memory
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda number, frame: os.kill(child, number))
    signal.signal(signal.SIGINT, lambda number, frame: None)  # a terminal sends it to both
    _, status = os.waitpid(child, 0)
    has_ended = os.read(pipe, 1) != b""
    if not has_ended:
        _exit_without_memory()
    sys.exit(os.waitstatus_to_exitcode(status))


def _exit_without_memory() -> NoReturn:
    with suppress(OSError):
        os.write(2, f"xmodal: {TOO_LITTLE_MEMORY}\n".encode())
    sys.exit(2)

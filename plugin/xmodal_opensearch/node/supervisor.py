"""Runs a server as its child and ends it when whoever asked for it is gone, however they went.

    python supervisor.py PARENT GRACE COMMAND...

PARENT is the pid of the process that asked. It holds the other end of this process's standard
input and never writes: the end of that input says "stop", whether it was closed on purpose or by
the kernel after ``kill -9``. PARENT is looked at as well, because a forked worker of the parent may
hold the pipe open. GRACE is how many seconds the server may take after SIGTERM before SIGKILL.

The first line on standard output is the server's pid; what the server prints goes to standard
error. Where the kernel can do it (Linux), the server is killed if this process is killed. That
signal is tied to the *thread* that started the server, so this process has one thread only, imports
little, and is started by the path of this file: it needs no installed package.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType

TICK = 0.2  # seconds between two looks at the server
PR_SET_PDEATHSIG = 1

_told: list[int] = []
"""The signals that asked this process to end."""


def _remember(number: int, frame: FrameType | None) -> None:
    _told.append(number)


def _die_with_me() -> Callable[[], None] | None:
    """What the server's process runs before it becomes the server; None where there is no way."""
    if not sys.platform.startswith("linux"):
        return None
    libc, me = ctypes.CDLL(None, use_errno=True), os.getpid()

    def ask_the_kernel() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != me:  # this process died before the kernel was asked
            os._exit(1)

    return ask_the_kernel


def _end(server: subprocess.Popen[bytes], grace: float) -> None:
    server.terminate()
    try:
        server.wait(grace)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def main(parent: int, grace: float, command: list[str]) -> int:
    """Start ``command``, wait for its end or for a reason to end it; return its exit status."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _remember)
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        preexec_fn=_die_with_me(),
        close_fds=False,  # the lock of the server's folder lasts as long as the server
    )
    print(server.pid, flush=True)
    while server.poll() is None:
        readable, _, _ = select.select([0], [], [], TICK)
        closed = bool(readable) and not os.read(0, 4096)
        if closed or _told or os.getppid() != parent:
            _end(server, grace)
    return server.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))

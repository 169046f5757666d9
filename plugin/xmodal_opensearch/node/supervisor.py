"""Runs a server as a child process and stops it when the parent process ends for any reason.

    python supervisor.py PARENT STOP_TIMEOUT COMMAND...

PARENT is the pid of the process that started the supervisor. It keeps the other end of standard
input open and writes nothing: the end of standard input means "stop", and also occurs when the
parent is killed. The supervisor checks its parent pid too, because a forked worker of the parent
may keep the pipe open. STOP_TIMEOUT is the number of seconds from SIGTERM to SIGKILL.

The first line of standard output is the server's pid; the output of the server goes to standard
error. On Linux the kernel kills the server if the supervisor is killed. This applies to the
*thread* that started the server, so the supervisor has one thread. It imports the standard library
only and is run by the path of this file, without installed packages.
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

POLL_INTERVAL = 0.2  # seconds
PR_SET_PDEATHSIG = 1

_signals: list[int] = []
"""Received signals that end this process."""


def _record_signal(number: int, frame: FrameType | None) -> None:
    _signals.append(number)


def _end_with_parent() -> Callable[[], None] | None:
    """Return the ``preexec_fn`` that ties the server to this process; None except on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    libc, supervisor = ctypes.CDLL(None, use_errno=True), os.getpid()

    def set_parent_death_signal() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:  # the supervisor ended before prctl
            os._exit(1)

    return set_parent_death_signal


def _stop(server: subprocess.Popen[bytes], timeout: float) -> None:
    server.terminate()
    try:
        server.wait(timeout)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def main(parent: int, stop_timeout: float, command: list[str]) -> int:
    """Run ``command`` until it ends or must be stopped; return its exit status."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _record_signal)
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        preexec_fn=_end_with_parent(),
        close_fds=False,  # the server inherits the lock of its folder
    )
    print(server.pid, flush=True)
    while server.poll() is None:
        readable, _, _ = select.select([0], [], [], POLL_INTERVAL)
        closed = bool(readable) and not os.read(0, 4096)
        if closed or _signals or os.getppid() != parent:
            _stop(server, stop_timeout)
    return server.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))

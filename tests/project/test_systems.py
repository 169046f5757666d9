"""Calls that a system lacks are in xmodal/operating_system.py, or listed here with their guard."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    *("os.chown", "os.fchmod", "os.fchown", "os.fork", "os.forkpty", "os.getegid", "os.geteuid"),
    *("os.getgid", "os.getloadavg", "os.getpgid", "os.getuid", "os.initgroups", "os.killpg"),
    *("os.lchown", "os.mkfifo", "os.nice", "os.posix_fadvise", "os.posix_fallocate", "os.pread"),
    *("os.preadv", "os.pwrite", "os.pwritev", "os.register_at_fork", "os.sched_getaffinity"),
    *("os.sched_setaffinity", "os.sendfile", "os.setsid", "os.statvfs", "os.sync", "os.sysconf"),
    *("os.uname", "os.wait", "os.waitid", "os.O_CLOEXEC", "os.O_DIRECTORY", "os.O_NOFOLLOW"),
    *("os.O_NONBLOCK", "os.symlink", "signal.SIGHUP", "signal.SIGKILL"),
    *("signal.SIGALRM", "signal.SIGCHLD", "signal.SIGPIPE", "signal.SIGUSR1", "signal.SIGUSR2"),
    *("signal.alarm", "signal.pause", "signal.pthread_sigmask", "signal.setitimer"),
    *("signal.sigwait", "mmap.MADV_RANDOM", "mmap.PROT_READ", "socket.AF_UNIX", "select.poll"),
    *("socket.SO_REUSEPORT", "time.tzset"),
}
PLACE = "xmodal/operating_system.py"
GUARDED = {
    # Only where the address space has a limit, which Windows has not.
    "xmodal/cli/start.py": {"os.fork", "signal.SIGHUP"},
    # ``hasattr`` before it.
    "xmodal/index/scan.py": {"os.register_at_fork"},
}
"""Calls outside of PLACE, and why they are not reached on Windows."""
NODE = "plugin/xmodal_opensearch/node/"
"""Development nodes: ``lock_folder`` refuses Windows in one line before anything else is called."""


def posix_calls(source: str) -> Iterator[str]:
    """Yield the modules and names of POSIX alone that a source uses, at any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name in POSIX_MODULES)
        elif isinstance(node, ast.ImportFrom):
            if node.module in POSIX_MODULES:
                yield str(node.module)
            found = {f"{node.module}.{one.name}" for one in node.names}
            yield from found & POSIX_NAMES
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in POSIX_NAMES:
            yield ast.unparse(node)


def test_calls_of_one_system_are_in_one_place() -> None:
    found: dict[str, set[str]] = {}
    for folder in ("xmodal", "plugin"):
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            calls = set(posix_calls(path.read_text("utf-8")))
            if calls and name != PLACE and not name.startswith(NODE):
                found[name] = calls
    assert found == GUARDED


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ("def f():\n    import fcntl", ["fcntl"]),
        ("from os import fork", ["os.fork"]),
        ("import os\nos.geteuid() == 0", ["os.geteuid"]),
        ("getattr(os, 'geteuid', None)", []),
    ],
)
def test_the_check_of_calls_can_fail(source: str, calls: list[str]) -> None:
    assert list(posix_calls(source)) == calls

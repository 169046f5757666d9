"""A process that has imported a program and forks for each run, so that runs need no imports.

    python forks.py MODULE [OTHER MODULES]

Reads one JSON line for each run: the arguments and the files of standard output and error. Calls
``main()`` of the first module in a fork; prints the process id, and its exit status at its end.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple


class Ended(NamedTuple):
    """Exit status, minus the signal after a kill, and the output."""

    status: int
    out: str
    err: str


@dataclass
class Forks:
    """A process that forks. ``out`` and ``err``: files of the output of the last run."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def run(self, *arguments: object, kill_after: float | None = None) -> Ended:
        """Run the program with arguments; SIGKILL after some seconds unless it has ended."""
        requests, replies = self.process.stdin, self.process.stdout
        assert requests is not None and replies is not None
        files = str(self.out), str(self.err)
        requests.write(json.dumps([list(map(str, arguments)), files]).encode() + b"\n")
        pid = int(replies.readline())
        if not select.select([replies], [], [], kill_after)[0]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        status = int(replies.readline())
        out, err = (path.read_text(errors="replace") for path in (self.out, self.err))
        return Ended(status, out, err)


@contextmanager
def forks(folder: Path, *modules: str) -> Iterator[Forks]:
    """Start the process, with the module search path of this one; ``folder``: of its files."""
    with subprocess.Popen(
        [sys.executable, __file__, *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        bufsize=0,  # select does not see what a buffer has
    ) as process:
        yield Forks(process, folder / "out.txt", folder / "err.txt")
        assert process.stdin is not None
        process.stdin.close()


def serve(main: Callable[[], None], requests: IO[str]) -> None:
    """Fork for each line."""
    for line in requests:
        arguments, files = json.loads(line)
        pid = os.fork()
        if pid == 0:
            for descriptor, name in zip((1, 2), files, strict=True):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            sys.argv = ["xmodal", *arguments]
            main()
            sys.exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    program, *_ = map(importlib.import_module, sys.argv[1:])
    serve(program.main, sys.stdin)

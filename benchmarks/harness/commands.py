"""Commands of xmodal in processes of their own, and a service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = "import sys; from {}.cli import main; main()"


def run(package: str, *arguments: object) -> str:
    """Run a command of a package; return its stdout."""
    command = [sys.executable, "-c", COMMAND.format(package), *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def serving(model: Path, uri: str) -> Iterator[str]:
    """Start a service; yield its address."""
    arguments = ["serve", "--model", str(model), "--index", uri, "--port", "0"]
    command = [sys.executable, "-c", COMMAND.format("xmodal"), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            found = (line.partition("listening on ")[2].strip() for line in process.stderr)
            yield next(filter(None, found))
        finally:
            process.terminate()

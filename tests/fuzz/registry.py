"""Targets of the fuzzer: functions of bytes that may raise only exceptions of xmodal.

A target does with the bytes what a user does with a file or a text. An exception of xmodal means
that the input was refused in one line; every other exception is a finding.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.errors import XmodalError

Run = Callable[[bytes], None]
MAX_BYTES = 1 << 16
"""Maximum length of an input, so that run times that grow with its square are found."""


@dataclass(frozen=True)
class Target:
    """One target of the fuzzer.

    ``module``: of its function. ``run``: the function. ``seeds``: returns small valid inputs.
    ``needs``: packages without which the target is left out.
    """

    name: str
    module: str
    run: Run
    seeds: Callable[[], Sequence[bytes]]
    needs: tuple[str, ...] = ()


TARGETS: dict[str, Target] = {}
"""Targets by name; filled by :func:`target`."""


def target(seeds: Callable[[], Sequence[bytes]], *needs: str) -> Callable[[Run], Run]:
    """Return a decorator that registers a function under its own name."""

    def register(function: Run) -> Run:
        @functools.wraps(function)
        def run(data: bytes) -> None:
            try:
                function(data)
            except XmodalError as error:
                assert "\n" not in str(error), f"message of several lines: {error}"

        TARGETS[function.__name__] = Target(
            function.__name__, function.__module__, run, seeds, needs
        )
        return run

    return register


@functools.cache
def folder() -> Path:
    """Return the folder of this process for files of targets; it is removed at the exit."""
    in_memory = Path("/dev/shm")
    path = tempfile.mkdtemp(prefix="xmodal-fuzz-", dir=in_memory if in_memory.is_dir() else None)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


class Choices:
    """Choices that the bytes of an input make, one after the other; zeros after its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def bytes(self, count: int) -> bytes:
        """Return the next bytes."""
        found = self._data[self._place : self._place + count]
        self._place += count
        return found.ljust(count, b"\0")

    def number(self, below: int) -> int:
        """Return an integer from 0 to ``below`` - 1, at most 255."""
        return self.bytes(1)[0] % below

    def pick(self, values: Sequence[Any]) -> Any:
        """Return one of the values."""
        return values[self.number(len(values))]

    def text(self) -> bytes:
        """Return up to 31 bytes of text, of any content."""
        return self.bytes(self.number(32))

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        return self._data[self._place :]

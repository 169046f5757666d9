"""Memory of processes (Linux)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
INTERVAL = 0.05
"""Seconds between two measurements."""


def process_memory(kind: str, process: int | str = "self") -> int | None:
    """Return the memory of a process in bytes; None if it has ended, and without /proc.

    ``kind``: "VmRSS", resident; "VmHWM", the largest resident; "RssAnon", resident and in no file;
    "RssFile", resident pages of files, which the system can drop and read again.
    """
    with suppress(OSError), open(f"/proc/{process}/status") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(kind)), None)
    return None


def reset_peak_memory() -> None:
    """Reset the largest resident memory of this process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def anonymous_memory() -> float:
    """Return the resident memory of this process that no file holds, in GB."""
    return (process_memory("RssAnon") or 0) / 1e9


class MemoryCurve:
    """Context that measures the anonymous memory of the process over time in a thread.

    ``points``: (seconds since the start, GB) of each measurement.
    """

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    @property
    def peak(self) -> float:
        """The largest measurement, GB."""
        return max(memory for _, memory in self.points)

    def peaks(self, parts: int) -> list[float]:
        """Return the largest measurement of each of ``parts`` parts of equal duration, GB."""
        end = self.points[-1][0]
        found = [0.0] * parts
        for at, memory in self.points:
            part = min(parts - 1, int(parts * at / max(end, 1e-9)))
            found[part] = max(found[part], memory)
        return found

    def _measure(self) -> None:
        while True:
            at = time.perf_counter() - self._started
            self.points.append((at, anonymous_memory()))
            if self._stop.wait(INTERVAL):
                return


def in_process(function: Callable[..., T], *arguments: Any) -> T:
    """Return the result of a function that runs in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()

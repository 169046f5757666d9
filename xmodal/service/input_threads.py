"""Threads for large and small inputs. Work on large ones gives way to small requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")

LARGE_BYTES = 256 * 1024
"""Bytes from which an input is large."""
MAX_PAUSE_SECONDS = 0.02
"""Longest pause of one step of the work on a large input: it goes on beside many small requests."""

_thread = threading.local()


class Precedence:
    """Counts the small requests in progress, for which the work on large ones pauses."""

    def __init__(self) -> None:
        self._running = 0
        self._idle = threading.Event()
        self._idle.set()

    @contextmanager
    def small(self) -> Iterator[None]:
        """Count a small request as in progress for the time of the block, in the event loop."""
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def enter_thread(self) -> None:
        """Make the current thread one that works on large inputs."""
        _thread.idle = self._idle


def give_way() -> None:
    """Wait until no small request is in progress, between two steps of the work on an input.

    At most MAX_PAUSE_SECONDS; not at all in a thread that works on small inputs.
    """
    idle = getattr(_thread, "idle", None)
    if idle is not None:
        idle.wait(MAX_PAUSE_SECONDS)


class InputThreads:
    """Runs functions on inputs: one large input at a time, and beside it one small input.

    Parsing holds the interpreter lock, so further threads would not be faster, but each of them
    would delay the event loop. A small input never waits for a large one.
    """

    def __init__(self, precedence: Precedence) -> None:
        self._small = ThreadPoolExecutor(1, thread_name_prefix="input")
        self._large = ThreadPoolExecutor(
            1, thread_name_prefix="large-input", initializer=precedence.enter_thread
        )

    async def run(self, size: int, function: Callable[[], Result]) -> Result:
        """Return the result of ``function`` on an input of ``size`` bytes."""
        threads = self._large if size > LARGE_BYTES else self._small
        return await asyncio.get_running_loop().run_in_executor(threads, function)

    def close(self) -> None:
        """Wait for the running functions and end the threads."""
        for threads in (self._small, self._large):
            threads.shutdown(wait=True, cancel_futures=True)

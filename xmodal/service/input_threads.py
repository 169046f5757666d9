"""Threads for the parsing of bodies and the decoding of pictures, apart by size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

LARGE_BYTES = 256 * 1024
"""Bytes from which an input is processed in the thread of the large ones."""


class InputThreads:
    """Runs functions on inputs: one large input at a time, and beside it one small input.

    Parsing holds the interpreter lock, so further threads would not be faster, but each of them
    would delay the event loop. A small input never waits for a large one.
    """

    def __init__(self) -> None:
        self._small = ThreadPoolExecutor(1, thread_name_prefix="parsing")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="parsing-large")

    async def run(self, size: int, function: Callable[[], Result]) -> Result:
        """Return the result of ``function`` on an input of ``size`` bytes."""
        threads = self._large if size > LARGE_BYTES else self._small
        return await asyncio.get_running_loop().run_in_executor(threads, function)

    def close(self) -> None:
        """Wait for the running functions and end the threads."""
        for threads in (self._small, self._large):
            threads.shutdown(wait=True, cancel_futures=True)

"""Speed of a long run: a limit of documents per second, and work that is done ahead."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Throttle:
    """Limits the rate of documents; ``rate`` in documents per second, None for no limit."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._next = 0.0

    def wait(self, count: int) -> None:
        """Sleep until ``count`` further documents are allowed."""
        if self.rate is None:
            return
        now = time.monotonic()
        time.sleep(max(0.0, self._next - now))
        self._next = max(now, self._next) + count / self.rate


def ahead(source: Iterable[T], count: int = 1) -> Iterator[T]:
    """Yield the items of ``source``; a thread computes the next ``count`` items meanwhile."""
    iterator = iter(source)
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="xmodal-ahead") as pool:
        pending: deque[Future[T | object]] = deque(
            pool.submit(next, iterator, end) for _ in range(count)
        )
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(pool.submit(next, iterator, end))
                yield item  # type: ignore[misc]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

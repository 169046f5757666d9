"""Micro-batching: calls that wait together are made together.

Nobody waits for others to come: while one batch is being worked on, the next one gathers. A lone
call is a batch of one and starts at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Told = TypeVar("Told")


class Batcher(Generic[Asked, Told]):
    """Makes single calls of ``work``, which takes many.

    ``work`` runs in one of ``workers`` threads and gives one answer a call, in order; an answer
    that is an exception is raised for the call it belongs to. If ``work`` itself raises, the calls
    of that batch are made one by one, so that one of them cannot fail the others. ``seen`` is told
    the size of each batch.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Asked]], Sequence[Told | Exception]],
        *,
        most: int,
        workers: int = 1,
        seen: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._work, self._most, self._seen = work, most, seen
        self._free = workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="batch")
        self._waiting: deque[tuple[Asked, asyncio.Future[Told]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, asked: Asked) -> Told:
        """The answer to one call."""
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        self._start()
        return await future

    def close(self) -> None:
        """Let go of the threads; what runs is finished."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> None:
        while self._free and self._waiting:
            batch: list[tuple[Asked, asyncio.Future[Told]]] = []
            while self._waiting and len(batch) < self._most:
                one = self._waiting.popleft()
                if not one[1].done():  # whoever asked has left
                    batch.append(one)
            if not batch:
                return
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, batch: list[tuple[Asked, asyncio.Future[Told]]]) -> None:
        loop = asyncio.get_running_loop()
        self._seen(len(batch))
        try:
            asked = [one for one, _ in batch]
            answers = await loop.run_in_executor(self._threads, self._answers, asked)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except BaseException as error:  # the threads are gone: nobody waits for ever
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            raise
        finally:
            self._free += 1
            self._start()

    def _answers(self, asked: Sequence[Asked]) -> Sequence[Told | Exception]:
        try:
            return self._work(asked)
        except Exception as error:
            if len(asked) == 1:
                return [error]
            return [answer for one in asked for answer in self._answers([one])]

"""Calls that wait together are made together; nobody waits for company, nobody spoils a batch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from xmodal.service.batching import Batcher


class Work:
    """Doubles numbers, remembers its batches, and waits at a gate if told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, asked: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(asked))
        self.gate.wait(10)
        if 13 in asked:
            raise ValueError("thirteen")
        return [KeyError("seven") if one == 7 else 2 * one for one in asked]


def run(what: Callable[[Work, Batcher[int, int]], Awaitable[Any]], **given: Any) -> Work:
    work = Work()

    async def inside() -> None:
        batcher: Batcher[int, int] = Batcher(work, **({"most": 4} | given))
        await what(work, batcher)
        batcher.close()

    asyncio.run(inside())
    return work


def test_a_lone_call_starts_at_once() -> None:
    async def what(work: Work, batcher: Batcher[int, int]) -> None:
        assert await batcher(1) == 2
        assert await batcher(2) == 4

    assert run(what).batches == [[1], [2]]


def test_what_waits_meanwhile_is_one_batch_of_at_most_so_many() -> None:
    sizes: list[int] = []

    async def what(work: Work, batcher: Batcher[int, int]) -> None:
        work.gate.clear()
        calls = [asyncio.ensure_future(batcher(n)) for n in range(7)]
        await asyncio.sleep(0.05)
        assert work.batches == [[0]]
        work.gate.set()
        assert await asyncio.gather(*calls, return_exceptions=True) == [0, 2, 4, 6, 8, 10, 12]

    assert run(what, seen=sizes.append).batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert sizes == [1, 4, 2]


def test_an_error_belongs_to_its_own_call() -> None:
    async def what(work: Work, batcher: Batcher[int, int]) -> None:
        work.gate.clear()
        calls = [asyncio.ensure_future(batcher(n)) for n in (1, 2, 7, 13, 3)]
        await asyncio.sleep(0.05)
        work.gate.set()
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert told[:2] == [2, 4] and told[4] == 6
        assert repr(told[2]) == "KeyError('seven')" and repr(told[3]) == "ValueError('thirteen')"

    # The batch that failed as a whole was made again, one by one.
    assert run(what).batches == [[1], [2, 7, 13, 3], [2], [7], [13], [3]]


def test_who_has_left_is_not_worked_for() -> None:
    async def what(work: Work, batcher: Batcher[int, int]) -> None:
        work.gate.clear()
        first, second, third = (asyncio.ensure_future(batcher(n)) for n in (1, 2, 3))
        await asyncio.sleep(0.05)
        second.cancel()
        work.gate.set()
        assert (await first, await third) == (2, 6)
        with pytest.raises(asyncio.CancelledError):
            await second

    assert run(what).batches == [[1], [3]]


def test_several_workers_run_side_by_side() -> None:
    async def what(work: Work, batcher: Batcher[int, int]) -> None:
        work.gate.clear()
        calls = [asyncio.ensure_future(batcher(n)) for n in (1, 2, 3)]
        await asyncio.sleep(0.05)
        assert sorted(work.batches) == [[1], [2]]
        work.gate.set()
        assert await asyncio.gather(*calls) == [2, 4, 6]

    assert run(what, workers=2).batches[-1] == [3]

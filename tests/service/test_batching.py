"""Batcher: batch sizes, errors of single calls, cancellation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from xmodal.service.batching import Batcher


class Double:
    """Doubles numbers and records its batches. Blocks while ``gate`` is cleared.

    Raises for a batch with 13, and returns an exception for 7.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(numbers))
        self.gate.wait(10)
        if 13 in numbers:
            raise ValueError("thirteen")
        return [KeyError("seven") if n == 7 else 2 * n for n in numbers]


def run(
    test: Callable[[Double, Batcher[int, int]], Awaitable[Any]], **options: Any
) -> list[list[int]]:
    """Run ``test`` with a Batcher of Double; returns the batches."""
    double = Double()

    async def inside() -> None:
        batcher: Batcher[int, int] = Batcher(double, **({"max_batch_size": 4} | options))
        await test(double, batcher)
        batcher.close()

    asyncio.run(inside())
    return double.batches


def test_single_call_is_a_batch_of_one() -> None:
    async def test(double: Double, batcher: Batcher[int, int]) -> None:
        assert await batcher(1) == 2
        assert await batcher(2) == 4

    assert run(test) == [[1], [2]]


def test_calls_during_a_batch_form_batches_of_limited_size() -> None:
    sizes: list[int] = []

    async def test(double: Double, batcher: Batcher[int, int]) -> None:
        double.gate.clear()
        calls = [asyncio.ensure_future(batcher(n)) for n in range(7)]
        await asyncio.sleep(0.05)
        assert double.batches == [[0]]
        double.gate.set()
        assert await asyncio.gather(*calls, return_exceptions=True) == [0, 2, 4, 6, 8, 10, 12]

    assert run(test, on_batch=sizes.append) == [[0], [1, 2, 3, 4], [5, 6]]
    assert sizes == [1, 4, 2]


def test_error_is_raised_by_its_own_call_only() -> None:
    async def test(double: Double, batcher: Batcher[int, int]) -> None:
        double.gate.clear()
        calls = [asyncio.ensure_future(batcher(n)) for n in (1, 2, 7, 13, 3)]
        await asyncio.sleep(0.05)
        double.gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[:2] == [2, 4] and results[4] == 6
        assert [type(result) for result in results[2:4]] == [KeyError, ValueError]

    # The inputs of the failed batch are retried one by one.
    assert run(test) == [[1], [2, 7, 13, 3], [2], [7], [13], [3]]


def test_cancelled_call_is_not_executed() -> None:
    async def test(double: Double, batcher: Batcher[int, int]) -> None:
        double.gate.clear()
        first, second, third = (asyncio.ensure_future(batcher(n)) for n in (1, 2, 3))
        await asyncio.sleep(0.05)
        second.cancel()
        double.gate.set()
        assert (await first, await third) == (2, 6)
        with pytest.raises(asyncio.CancelledError):
            await second

    assert run(test) == [[1], [3]]


def test_workers_run_in_parallel() -> None:
    async def test(double: Double, batcher: Batcher[int, int]) -> None:
        double.gate.clear()
        calls = [asyncio.ensure_future(batcher(n)) for n in (1, 2, 3)]
        await asyncio.sleep(0.05)
        assert sorted(double.batches) == [[1], [2]]
        double.gate.set()
        assert await asyncio.gather(*calls) == [2, 4, 6]

    assert run(test, workers=2)[-1] == [3]

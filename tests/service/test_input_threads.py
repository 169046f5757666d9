"""Threads for large and small inputs: small ones do not wait for large ones."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from xmodal.service import input_threads
from xmodal.service.input_threads import LARGE_BYTES, InputThreads, Precedence, give_way


def test_large_inputs_wait_for_each_other_and_small_ones_for_none() -> None:
    gate, running = threading.Event(), []

    def large() -> int:
        running.append("large")
        gate.wait(10)
        return len(running)

    async def test() -> None:
        threads = InputThreads(Precedence())
        calls = [asyncio.ensure_future(threads.run(LARGE_BYTES + 1, large)) for _ in range(2)]
        while not running:
            await asyncio.sleep(0.001)
        assert await threads.run(LARGE_BYTES, lambda: "small") == "small"
        assert running == ["large"]
        gate.set()
        assert await asyncio.gather(*calls) == [1, 2]
        threads.close()

    asyncio.run(test())


def test_large_input_gives_way_to_small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> list[str]:
        precedence, order = Precedence(), list[str]()
        threads = InputThreads(precedence)

        def large() -> None:
            order.append("step")
            started.set()
            give_way()
            order.append("next step")

        started = threading.Event()
        with precedence.small():
            call = asyncio.ensure_future(threads.run(LARGE_BYTES + 1, large))
            await asyncio.to_thread(started.wait, 10)
            await threads.run(1, give_way)  # not at all in a thread of small inputs
            order.append("small")
        await call
        threads.close()
        return order

    monkeypatch.setattr(input_threads, "MAX_PAUSE_SECONDS", 10.0)
    start = time.monotonic()
    assert asyncio.run(test()) == ["step", "small", "next step"]
    assert time.monotonic() - start < 10

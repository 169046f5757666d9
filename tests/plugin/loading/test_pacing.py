"""Throttle and work that is done ahead."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from xmodal_opensearch.loading.pacing import Throttle, ahead


def test_throttle_limits_the_mean_rate() -> None:
    throttle, began = Throttle(200), time.monotonic()
    for _ in range(5):
        throttle.wait(10)
    assert time.monotonic() - began >= 4 * 10 / 200
    unlimited, began = Throttle(None), time.monotonic()
    for _ in range(100):
        unlimited.wait(10**9)
    assert time.monotonic() - began < 60


def test_items_are_computed_ahead_in_order() -> None:
    computed: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(5):
            computed.append(number)
            yield number

    for number in ahead(numbers(), 2):
        assert computed[: number + 1] == list(range(number + 1)) and len(computed) <= number + 4
        if number < 4:
            deadline = time.monotonic() + 60
            while number + 1 not in computed and time.monotonic() < deadline:
                time.sleep(0.001)
            assert number + 1 in computed
    assert list(ahead([])) == []


def test_errors_of_the_source_are_raised() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("here")

    items = ahead(failing())
    assert next(items) == 1
    with pytest.raises(ValueError, match="here"):
        next(items)

"""Pauses between attempts: they grow, they are bounded, and they end in time."""

from __future__ import annotations

import pytest

from xmodal_opensearch.client.retry import Retry, poll


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    monkeypatch.setattr("time.sleep", clock.sleep)
    return clock


def test_pauses_grow_to_the_longest_and_end_in_time(clock: Clock) -> None:
    retry = Retry(60, first=0.5, longest=4)
    while retry.wait():
        pass
    wanted = [0.5, 1, 2, *[4.0] * (len(clock.slept) - 3)]
    assert len(clock.slept) > 10
    assert all(w / 2 <= s <= w for w, s in zip(wanted, clock.slept, strict=True))
    assert 55 < sum(clock.slept) <= 60
    assert not retry.wait()


def test_a_poll_has_equal_pauses(clock: Clock) -> None:
    retry = poll(1, 0.1)
    while retry.wait():
        pass
    assert len(clock.slept) >= 10 and all(0.05 <= one <= 0.1 for one in clock.slept)


def test_no_time_is_no_pause(clock: Clock) -> None:
    assert not Retry(0).wait()
    assert clock.slept == []

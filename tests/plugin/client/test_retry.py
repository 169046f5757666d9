"""``Retry``: pauses grow to a maximum and end with the timeout."""

from __future__ import annotations

import pytest

from xmodal_opensearch.client.retry import Retry, poll


class Clock:
    """Time that passes only in ``sleep``."""

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


def test_retry_pauses_grow_to_the_maximum_until_the_timeout(clock: Clock) -> None:
    retry = Retry(60, first_pause=0.5, max_pause=4)
    while retry.wait():
        pass
    longest = [0.5, 1, 2, *[4.0] * (len(clock.slept) - 3)]
    assert len(clock.slept) > 10
    assert all(p / 2 <= s <= p for p, s in zip(longest, clock.slept, strict=True))
    assert 55 < sum(clock.slept) <= 60
    assert not retry.wait()


def test_poll_pauses_have_equal_length(clock: Clock) -> None:
    retry = poll(1, 0.1)
    while retry.wait():
        pass
    assert len(clock.slept) >= 10 and all(0.05 <= pause <= 0.1 for pause in clock.slept)


def test_retry_without_time_does_not_sleep(clock: Clock) -> None:
    assert not Retry(0).wait()
    assert clock.slept == []

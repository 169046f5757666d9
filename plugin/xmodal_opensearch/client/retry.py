"""The pauses between attempts of something that may succeed a little later."""

from __future__ import annotations

import random
import time

LONGEST_PAUSE = 5.0


class Retry:
    """Pauses between attempts that grow to ``longest`` seconds, until ``timeout`` seconds are over.

    Each pause is shortened at random by up to a half, so that several clients do not come at once.
    """

    def __init__(
        self, timeout: float, *, first: float = 0.1, longest: float = LONGEST_PAUSE
    ) -> None:
        self._end = time.monotonic() + timeout
        self._pause = first
        self._longest = longest

    def wait(self) -> bool:
        """Sleep before the next attempt; without sleeping return False if the time is over."""
        if time.monotonic() + self._pause > self._end:
            return False
        time.sleep(self._pause * random.uniform(0.5, 1))
        self._pause = min(2 * self._pause, self._longest)
        return True


def poll(timeout: float, pause: float = 0.1) -> Retry:
    """Pauses of the same length."""
    return Retry(timeout, first=pause, longest=pause)

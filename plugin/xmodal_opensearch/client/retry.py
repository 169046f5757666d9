"""Pauses between the attempts of an operation that may succeed later."""

from __future__ import annotations

import random
import time

MAX_PAUSE = 5.0  # seconds


class Retry:
    """Pauses that double from ``first_pause`` to ``max_pause``, for ``timeout`` seconds in total.

    Each pause is shortened at random by up to a half, so that clients do not retry in step.
    """

    def __init__(
        self, timeout: float, *, first_pause: float = 0.1, max_pause: float = MAX_PAUSE
    ) -> None:
        self._end = time.monotonic() + timeout
        self._pause = first_pause
        self._max_pause = max_pause
        self._text, self._times = "", 0

    def wait(self) -> bool:
        """Sleep before the next attempt. Return False, without sleeping, after the timeout."""
        if time.monotonic() + self._pause > self._end:
            return False
        time.sleep(self._pause * random.uniform(0.5, 1))
        self._pause = min(2 * self._pause, self._max_pause)
        return True

    def count_repetitions(self, text: str) -> int:
        """Return how many of the calls directly before this one had the same text."""
        self._times = self._times + 1 if text == self._text else 0
        self._text = text
        return self._times


def poll(timeout: float, pause: float = 0.1) -> Retry:
    """Return pauses of constant length, in seconds."""
    return Retry(timeout, first_pause=pause, max_pause=pause)

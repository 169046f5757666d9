"""The type of callbacks that long tasks report their progress to."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Callback for progress: name of the task, number of steps done, total number of steps."""

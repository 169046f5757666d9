"""Requests without a complete answer, and their reasons."""

from __future__ import annotations

from urllib3.exceptions import IncompleteRead, LocationValueError, TimeoutError


class RequestFailed(Exception):
    """No complete answer was received. The message is the reason, in one line, without the URL."""


def failure_reason(error: BaseException) -> str:
    """Return the innermost reason; urllib3's own messages contain the repr of objects."""
    if isinstance(error, LocationValueError):
        return "the address is not valid"
    if isinstance(error, IncompleteRead):
        return f"the answer was cut off, {error.expected:,} bytes are missing"
    inner = error.__cause__ or next(
        (arg for arg in reversed(error.args) if isinstance(arg, BaseException)), None
    )
    if inner is not None:
        return failure_reason(inner)
    return "timed out" if isinstance(error, TimeoutError) else " ".join(str(error).split())

"""Structured logs: one line per request, and the messages of the service, as JSON or text.

A line has no query text, no document id, no address of a page and no secret: the path is the one of
the route, without its query.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Literal

Format = Literal["json", "text"]
QUEUE_LENGTH = 10_000
"""Lines that wait to be written; further ones are dropped, so that a blocked standard error does
not stop the service."""

log = logging.getLogger("xmodal.service.requests")
log.disabled = True


@dataclass(frozen=True)
class RequestRecord:
    """What is logged of a request: times in milliseconds, sizes of bodies in bytes."""

    id: str
    client: str
    method: str
    route: str
    status: int
    ms: float
    received: int
    sent: int


def log_request(record: RequestRecord) -> None:
    """Log a completed request, if the log of requests is on."""
    if log.isEnabledFor(logging.INFO):
        log.info("request", extra={"request": record})


@contextmanager
def request_log(format: Format | None) -> Iterator[None]:
    """Write one line per request, and all warnings, on standard error for the time of the block.

    None: no lines of requests, and warnings as Python writes them.
    """
    if format is None:
        yield
        return
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(_JsonFormatter() if format == "json" else _TextFormatter())
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_LENGTH)
    listener = QueueListener(waiting, output)
    handler = _DroppingHandler(waiting)
    loggers = [logging.getLogger(), *map(logging.getLogger, ("xmodal", "uvicorn")), log]
    before = [(one, one.handlers[:], one.level, one.propagate) for one in loggers]
    for one in loggers:
        one.handlers, one.propagate = [handler], False
    log.setLevel(logging.INFO)
    log.disabled = False
    listener.start()
    try:
        yield
    finally:
        log.disabled = True
        for one, handlers, level, propagate in before:
            one.handlers, one.propagate = handlers, propagate
            one.setLevel(level)
        listener.stop()


class _DroppingHandler(QueueHandler):
    """Passes records to another thread; drops them while the queue is full."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # the formatter runs in the same process

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            pass


class _JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"time": _time(record), "level": record.levelname.lower()}
        request = getattr(record, "request", None)
        if request is not None:
            line |= asdict(request)
        else:
            line["message"] = record.getMessage().strip()
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _TextFormatter(logging.Formatter):
    """Words separated by spaces; the trace of an error on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        request = getattr(record, "request", None)
        if request is None:
            text = f"{_time(record)} {record.levelname.lower()} {record.getMessage().strip()}"
        else:
            text = f"{_time(record)} " + " ".join(
                f"{name}={_word(value)}" for name, value in asdict(request).items()
            )
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return text + trace


def _word(value: object) -> str:
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text else repr(text)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

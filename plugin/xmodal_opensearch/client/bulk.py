"""Bulk requests: batches of lines, sent by several threads, with retries of refused lines.

The module contains no HTTP: the ``post`` function that is passed in sends one body. Documents have
ids of their own, so that sending a document twice stores it once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xmodal.errors import ServerFailure
from xmodal_opensearch.client.errors import (
    RETRY_STATUSES,
    describe_missing,
    reason_of,
    status_of,
)
from xmodal_opensearch.client.retry import Retry

MAX_BATCH_LINES = 2000
MAX_BATCH_BYTES = 8 << 20
Post = Callable[[bytes], Any]
IsRetryable = Callable[[BaseException], bool]


class Line(NamedTuple):
    """One action on one document, as the one or two JSON lines of a bulk body."""

    id: str
    body: bytes


Batch = list[Line]


@dataclass
class Report:
    """Counts of the results ("created", "updated", ...) and the reason of each refused id."""

    results: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, other: Report) -> None:
        """Add the counts and failures of another report."""
        self.results.update(other.results)
        self.failed.update(other.failed)

    @property
    def stored(self) -> int:
        """Number of documents that were created or updated."""
        return sum(self.results[name] for name in ("created", "updated", "noop"))


def update_line(
    id_: str,
    change: Mapping[str, Any],
    *,
    version: tuple[int, int] | None = None,
    routing: str | None = None,
) -> Line:
    """Return a partial update of one document.

    ``version`` (sequence number, primary term): the server refuses the update if the document has
    changed since this version was read.
    """
    action: dict[str, Any] = {"_id": id_}
    if version is not None:
        action |= {"if_seq_no": version[0], "if_primary_term": version[1]}
    if routing is not None:
        action["routing"] = routing
    head = json.dumps({"update": action}, ensure_ascii=False)
    return Line(id_, f"{head}\n{json.dumps({'doc': change}, ensure_ascii=False)}\n".encode())


def delete_line(id_: str) -> Line:
    """Return the deletion of one document."""
    action = json.dumps({"delete": {"_id": id_}}, ensure_ascii=False)
    return Line(id_, f"{action}\n".encode())


def batches(
    lines: Iterable[Line], max_lines: int = MAX_BATCH_LINES, max_bytes: int = MAX_BATCH_BYTES
) -> Iterator[Batch]:
    """Yield batches within both limits; a single line above ``max_bytes`` is a batch of its own."""
    batch: Batch = []
    size = 0
    for line in lines:
        if batch and (len(batch) >= max_lines or size + len(line.body) > max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.body)
    if batch:
        yield batch


def send_batch(batch: Batch, post: Post, is_retryable: IsRetryable, retry_timeout: float) -> Report:
    """Send one batch; retry a failed request, and the lines that a busy server refused.

    Raises the error of ``post`` if it is not retryable or ``retry_timeout`` (seconds) has passed,
    and ServerFailure if the server is still busy then.
    """
    report = Report()
    unsent = batch
    retry = Retry(retry_timeout, first_pause=0.2)
    while unsent:
        failure: Exception | None = None
        try:
            answer = post(b"".join(line.body for line in unsent))
            unsent, reason = _read_answer(answer, unsent, report)
            if reason:
                failure = ServerFailure(f"the server is busy: {reason}", 429, reason)
        except Exception as error:
            if not is_retryable(error):
                raise
            failure = error
        if failure is not None and not retry.wait():
            raise failure
    return report


def send(
    source: Iterable[Batch],
    post: Post,
    is_retryable: IsRetryable,
    *,
    workers: int = 2,
    retry_timeout: float = 90.0,
    on_sent: Callable[[Batch, Report], None] | None = None,
) -> Report:
    """Send all batches with ``workers`` threads; at most ``2 * workers`` batches are in memory.

    ``on_sent`` is called in the caller's thread with each batch that was sent, and its report.
    Raises the first error of :func:`send_batch` and of ``source``.
    """
    total = Report()
    pending: dict[Future[Report], Batch] = {}

    def collect(finished: Iterable[Future[Report]]) -> None:
        for future in finished:
            batch = pending.pop(future)
            report = future.result()
            total.add(report)
            if on_sent is not None:
                on_sent(batch, report)

    with ThreadPoolExecutor(workers, thread_name_prefix="xmodal-bulk") as pool:
        try:
            for batch in source:
                future = pool.submit(send_batch, batch, post, is_retryable, retry_timeout)
                pending[future] = batch
                if len(pending) >= 2 * workers:
                    collect(wait(pending, return_when=FIRST_COMPLETED).done)
            collect(list(pending))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return total


def _read_answer(answer: Mapping[str, Any], sent: Batch, report: Report) -> tuple[Batch, str]:
    """Add the results of an answer to ``report``; return the lines to retry and the last reason."""
    unsent: Batch = []
    reason = ""
    for line, item in zip(sent, answer["items"], strict=True):
        (result,) = item.values()
        if status_of(result["status"], result) in RETRY_STATUSES:
            unsent.append(line)
            reason = reason_of(result) or "busy"
        elif "error" in result:
            refusal = reason_of(result) or str(result["error"])
            report.failed[line.id] = describe_missing(refusal)
        else:
            report.results[result["result"]] += 1
    return unsent, reason

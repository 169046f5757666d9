"""Bulk requests: batches of lines, sent by several threads, with retries of refused lines.

The module contains no HTTP: the ``post`` function that is passed in sends one body. Documents have
ids of their own, so that sending a document twice stores it once. A batch that the server or a
proxy before it refuses as too large is sent in halves.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, NamedTuple

from xmodal.errors import IndexMissing, ServerFailure
from xmodal_opensearch.client.errors import TOO_LARGE, describe_missing, may_pass, reason_of
from xmodal_opensearch.client.retry import Retry

MAX_BATCH_LINES = 2000
MAX_BATCH_BYTES = 8 << 20
FIRST_PAUSE = 0.2  # seconds
Post = Callable[[bytes], Any]
IsRetryable = Callable[[BaseException], bool]
IsRepeated = Callable[[Exception, Retry], bool]


class Line(NamedTuple):
    """One action on one document, as the one or two JSON lines of a bulk body."""

    id: str
    body: bytes


Batch = list[Line]


@dataclass
class Report:
    """Counts of the results ("created", "updated", ...) and the reason of each refused id.

    ``busy``: answers of a server that was too busy for the request or for some of its lines, which
    were sent again. The result "unknown" is that of a deletion that found no document after an
    earlier attempt whose answer was lost: this attempt may have removed it.
    """

    results: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    busy: int = 0

    def add(self, other: Report) -> None:
        """Add the counts and failures of another report."""
        self.results.update(other.results)
        self.failed.update(other.failed)
        self.busy += other.busy

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


class RequestLimit:
    """Limits the concurrent requests: halved by each answer of a busy server, else raised slowly.

    ``present`` is between 1 and ``most``; answers to ``present`` requests raise it by one. Used by
    several threads, as the context of a request.
    """

    def __init__(self, most: int) -> None:
        self.most, self.present = most, float(most)
        self._active = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._active < int(self.present))
            self._active += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._active -= 1
            self._changed.notify_all()

    def adapt(self, *, busy: bool) -> None:
        """Change the limit after an answer."""
        with self._changed:
            changed = self.present / 2 if busy else self.present + 1 / self.present
            self.present = min(float(self.most), max(1.0, changed))
            self._changed.notify_all()


@dataclass
class SizeLimit:
    """Bytes of the smallest request that was refused as too large; larger ones are not sent."""

    bytes: float = inf

    def allows(self, batch: Batch) -> bool:
        """Return whether a batch is small enough, or cannot be divided."""
        return len(batch) == 1 or _size(batch) < self.bytes


def send_batch(
    batch: Batch,
    post: Post,
    is_retryable: IsRetryable,
    retry_timeout: float,
    *,
    is_repeated: IsRepeated = lambda error, retry: False,
    limit: SizeLimit | None = None,
    requests: RequestLimit | None = None,
) -> Report:
    """Send one batch; retry a failed request, and the lines that a busy server refused.

    ``is_repeated``: whether a retryable error came too often in a row. ``limit`` is lowered by
    refused requests, ``requests`` by a busy server. Raises the error of ``post`` if it is not
    retryable or ``retry_timeout`` (seconds) has passed since the server last accepted a line,
    ServerFailure if the server is still busy then or refuses a single line as too large, and
    IndexMissing if the index was deleted.
    """
    report = Report()
    limit, requests = limit or SizeLimit(), requests or RequestLimit(1)
    retry = Retry(retry_timeout, first_pause=FIRST_PAUSE)
    uncertain: set[str] = set()
    pieces = [batch] if batch else []
    while pieces:
        piece = pieces.pop()
        failure: Exception | None = None
        if limit.allows(piece):
            count = len(piece)
            try:
                with requests:
                    answer = post(_body(piece))
                piece, failure = _read_answer(answer, piece, report, uncertain)
            except Exception as error:
                failure = error
            if len(piece) < count:
                retry = Retry(retry_timeout, first_pause=FIRST_PAUSE)
            status = getattr(failure, "status", 0)
            requests.adapt(busy=status == 429)
            if failure is None:
                continue
            report.busy += status == 429
            repeated = is_retryable(failure) and is_repeated(failure, retry)
            # A breaker that repeats counts the bytes of this request.
            if status != TOO_LARGE and not (repeated and status == 429):
                if repeated or not is_retryable(failure) or not retry.wait():
                    raise failure
                if status != 429:  # else the server refused it before any change
                    uncertain |= {line.id for line in piece}
                pieces.append(piece)
                continue
            limit.bytes = min(limit.bytes, _size(piece))
            if len(piece) == 1:
                raise _too_large(piece[0], failure) from failure
        middle = len(piece) // 2
        pieces += [piece[middle:], piece[:middle]]
    return report


def send(
    source: Iterable[Batch],
    post: Post,
    is_retryable: IsRetryable,
    *,
    is_repeated: IsRepeated = lambda error, retry: False,
    workers: int = 2,
    retry_timeout: float = 90.0,
    on_sent: Callable[[Batch, Report], None] | None = None,
) -> Report:
    """Send all batches with ``workers`` threads; at most ``2 * workers`` batches are in memory.

    Fewer requests are sent at the same time while the server answers that it is busy.
    ``on_sent`` is called in the caller's thread with each batch that was sent, and its report,
    which is added to the total afterwards.
    Raises the first error of :func:`send_batch` and of ``source``.
    """
    total = Report()
    pending: dict[Future[Report], Batch] = {}
    send_one = partial(
        send_batch,
        post=post,
        is_retryable=is_retryable,
        retry_timeout=retry_timeout,
        is_repeated=is_repeated,
        limit=SizeLimit(),
        requests=RequestLimit(workers),
    )

    def collect(finished: Iterable[Future[Report]]) -> None:
        for future in finished:
            batch = pending.pop(future)
            report = future.result()
            if on_sent is not None:
                on_sent(batch, report)
            total.add(report)

    with ThreadPoolExecutor(workers, thread_name_prefix="xmodal-bulk") as pool:
        try:
            for batch in source:
                future = pool.submit(send_one, batch)
                pending[future] = batch
                if len(pending) >= 2 * workers:
                    collect(wait(pending, return_when=FIRST_COMPLETED).done)
            collect(list(pending))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return total


def _read_answer(
    answer: Any, sent: Batch, report: Report, uncertain: set[str]
) -> tuple[Batch, ServerFailure | None]:
    """Add the results of an answer to ``report``; return the lines to retry, and why.

    ``uncertain``: ids whose earlier request may have been executed; those of ``sent`` for which the
    server is not sure are added. Raises IndexMissing if the index was deleted.
    """
    results = _results(answer, sent)
    if results is None:
        return sent, ServerFailure("the answer has not one result for each line", 0, "answer")
    unsent: Batch = []
    reason = ""
    for line, result in zip(sent, results, strict=True):
        if may_pass(result["status"], result):
            unsent.append(line)
            reason = reason_of(result) or "busy"
            if result["status"] != 429:
                uncertain.add(line.id)
        elif "error" in result:
            refusal = reason_of(result) or str(result["error"])
            if result["error"].get("type") == "index_not_found_exception":
                raise IndexMissing(f"the index was deleted while it was open: {refusal}")
            report.failed[line.id] = describe_missing(refusal)
        elif result["result"] == "not_found" and line.id in uncertain:
            report.results["unknown"] += 1
        else:
            report.results[result["result"]] += 1
    if not unsent:
        return [], None
    return unsent, ServerFailure(f"the server is busy: {reason}", 429, reason)


def _results(answer: Any, sent: Batch) -> list[dict[str, Any]] | None:
    """Return the results of an answer, one per line; None for an answer of another kind."""
    items = answer.get("items") if isinstance(answer, dict) else None
    if not isinstance(items, list) or len(items) != len(sent):
        return None
    results = []
    for item, line in zip(items, sent, strict=True):
        (result, *more) = item.values() if isinstance(item, dict) and item else (None,)
        if not isinstance(result, dict) or more or result.get("_id", line.id) != line.id:
            return None
        has_outcome = isinstance(result.get("error"), dict) or isinstance(result.get("result"), str)
        if not has_outcome or not isinstance(result.get("status"), int):
            return None
        results.append(result)
    return results


def _body(batch: Batch) -> bytes:
    return b"".join(line.body for line in batch)


def _size(batch: Batch) -> int:
    return sum(len(line.body) for line in batch)


def _too_large(line: Line, failure: Exception) -> ServerFailure:
    """Return the error for a document that is refused alone."""
    return ServerFailure(
        f"the document {line.id!r} has {len(line.body):,} bytes: {failure}",
        getattr(failure, "status", 0),
        getattr(failure, "reason", ""),
    )

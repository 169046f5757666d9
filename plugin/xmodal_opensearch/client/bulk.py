"""Documents -> bulk requests, sent by several workers until the server has taken them.

Bodies are prepared here, as bytes, and nothing here knows a client: ``post`` sends one body. Ids
are the documents' own, so sending twice is storing once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xmodal.errors import ServerFailure
from xmodal_opensearch.client.errors import PASSING, reason_of, status_of
from xmodal_opensearch.client.retry import Retry

BATCH = 2000
BATCH_BYTES = 8 << 20
Post = Callable[[bytes], Any]
Passing = Callable[[BaseException], bool]


class Line(NamedTuple):
    """One action on one document, as the lines of a bulk body."""

    id: str
    body: bytes


Batch = list[Line]


@dataclass
class Report:
    """What became of the lines: how many with each result, and the reasons of those refused."""

    results: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    def take(self, other: Report) -> None:
        """Add what another report says."""
        self.results.update(other.results)
        self.failed.update(other.failed)

    @property
    def stored(self) -> int:
        """How many documents were created or updated."""
        return sum(self.results[name] for name in ("created", "updated", "noop"))


def update_line(
    id_: str,
    change: Mapping[str, Any],
    *,
    seen: tuple[int, int] | None = None,
    routing: str | None = None,
) -> Line:
    """A partial update; with ``seen`` (sequence number, term) only if nobody changed it since."""
    action: dict[str, Any] = {"_id": id_}
    if seen is not None:
        action |= {"if_seq_no": seen[0], "if_primary_term": seen[1]}
    if routing is not None:
        action["routing"] = routing
    head = json.dumps({"update": action}, ensure_ascii=False)
    return Line(id_, f"{head}\n{json.dumps({'doc': change}, ensure_ascii=False)}\n".encode())


def delete_line(id_: str) -> Line:
    """The removal of one document."""
    action = json.dumps({"delete": {"_id": id_}}, ensure_ascii=False)
    return Line(id_, f"{action}\n".encode())


def batches(lines: Iterable[Line], count: int = BATCH, size: int = BATCH_BYTES) -> Iterator[Batch]:
    """Lines in groups of at most ``count`` and, unless one alone is larger, ``size`` bytes."""
    batch: Batch = []
    held = 0
    for line in lines:
        if batch and (len(batch) >= count or held + len(line.body) > size):
            yield batch
            batch, held = [], 0
        batch.append(line)
        held += len(line.body)
    if batch:
        yield batch


def send_batch(batch: Batch, post: Post, passing: Passing, patience: float) -> Report:
    """Send one batch; what a busy or lost server did not take is sent again, with growing pauses.

    Raises what ``post`` raises if it is not ``passing``, or when ``patience`` (seconds) is over.
    """
    report = Report()
    left = batch
    retry = Retry(patience, first=0.2)
    while left:
        failure: Exception | None = None
        try:
            answer = post(b"".join(line.body for line in left))
            left, again = _read(answer, left, report)
            if again:
                failure = ServerFailure(f"the server is busy: {again}", 429, again)
        except Exception as error:
            if not passing(error):
                raise
            failure = error
        if failure is not None and not retry.wait():
            raise failure
    return report


def send(
    every: Iterable[Batch],
    post: Post,
    passing: Passing,
    *,
    workers: int = 2,
    patience: float = 90.0,
    done: Callable[[Batch, Report], None] | None = None,
) -> Report:
    """Send all batches, ``workers`` at a time, never holding more than twice as many.

    ``done`` is told of each batch that the server has taken, in this thread.
    """
    total = Report()
    waiting: dict[Future[Report], Batch] = {}

    def collect(some: Iterable[Future[Report]]) -> None:
        for one in some:
            batch = waiting.pop(one)
            report = one.result()
            total.take(report)
            if done is not None:
                done(batch, report)

    with ThreadPoolExecutor(workers, thread_name_prefix="xmodal-bulk") as pool:
        try:
            for batch in every:
                waiting[pool.submit(send_batch, batch, post, passing, patience)] = batch
                if len(waiting) >= 2 * workers:
                    collect(wait(waiting, return_when=FIRST_COMPLETED).done)
            collect(list(waiting))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return total


def _read(answer: Mapping[str, Any], sent: Batch, report: Report) -> tuple[Batch, str]:
    """Note what the server says of each line; the lines to send again, and why."""
    again: Batch = []
    why = ""
    for line, item in zip(sent, answer["items"], strict=True):
        (told,) = item.values()
        if status_of(told["status"], told) in PASSING:
            again.append(line)
            why = reason_of(told) or "busy"
        elif "error" in told:
            report.failed[line.id] = reason_of(told) or str(told["error"])
        else:
            report.results[told["result"]] += 1
    return again, why

"""Bulk batches, and sending them to a server that is busy, lost or refuses some lines."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.errors import IndexMissing, ServerFailure
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.bulk import (
    Batch,
    Line,
    Report,
    RequestLimit,
    batches,
    send,
    send_batch,
)
from xmodal_opensearch.client.server import is_repeated, is_retryable

LOST = ServerFailure("gone", 0, "connection")
PERMANENT = ServerFailure("no", 403, "forbidden")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of each pause."""
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(seconds / 100))


def lines(*ids: str) -> Batch:
    return [Line(id_, f"<{id_}>".encode()) for id_ in ids]


def answer(*results: tuple[int, str]) -> dict[str, Any]:
    """A bulk answer from the status of each line and its result, or the reason of its error."""
    return {
        "items": [
            {"index": {"status": status, "result": word}}
            if status < 300
            else {"index": {"status": status, "error": {"type": "t", "reason": word}}}
            for status, word in results
        ]
    }


class Script:
    """A ``post`` function that returns or raises each reply once, and records the bodies."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.bodies: list[bytes] = []

    def __call__(self, body: bytes) -> Any:
        self.bodies.append(body)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


# ---- lines -----------------------------------------------------------------------------------


def test_update_line_and_delete_line() -> None:
    assert bulk.update_line("é", {"a": "é"}).body.decode() == (
        '{"update": {"_id": "é"}}\n{"doc": {"a": "é"}}\n'
    )
    versioned = bulk.update_line("a", {"a": 1}, version=(5, 2)).body.split(b"\n")[0]
    assert json.loads(versioned) == {"update": {"_id": "a", "if_seq_no": 5, "if_primary_term": 2}}
    routed = bulk.update_line("a", {"a": 1}, routing="r").body.split(b"\n")[0]
    assert json.loads(routed) == {"update": {"_id": "a", "routing": "r"}}
    assert bulk.delete_line("é").body.decode() == '{"delete": {"_id": "é"}}\n'


# ---- batches ---------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(1, 30), max_size=40),
    count=st.integers(1, 7),
    size=st.integers(1, 60),
)
def test_batches_have_every_line_in_order_and_reach_the_limits(
    sizes: list[int], count: int, size: int
) -> None:
    every = [Line(str(n), b"x" * length) for n, length in enumerate(sizes)]
    made = list(batches(every, count, size))
    assert [line for batch in made for line in batch] == every
    for batch in made:
        assert len(batch) == 1 or (
            len(batch) <= count and sum(len(line.body) for line in batch) <= size
        )
    for batch, following in pairwise(made):
        length = sum(len(line.body) for line in batch)
        assert len(batch) == count or length + len(following[0].body) > size


def test_batches_are_made_lazily() -> None:
    def endless() -> Iterator[Line]:
        while True:
            yield Line("a", b"x")

    made = batches(endless(), 3)
    assert [len(next(made)), len(next(made))] == [3, 3]


# ---- one batch -------------------------------------------------------------------------------


def test_send_batch_counts_results() -> None:
    post = Script(answer((201, "created"), (200, "updated"), (200, "deleted"), (200, "noop")))
    report = send_batch(lines("a", "b", "c", "d"), post, is_retryable, 9)
    assert post.bodies == [b"<a><b><c><d>"]
    assert report.results == {"created": 1, "updated": 1, "deleted": 1, "noop": 1}
    assert (report.stored, report.failed) == (3, {})


def test_send_batch_retries_lines_of_a_lost_node() -> None:
    gone = {"type": "node_not_connected_exception", "reason": "node left"}
    lost = {"items": [{"index": {"status": 500, "error": gone}}]}
    report = send_batch(lines("a"), Script(lost, answer((201, "created"))), is_retryable, 9)
    assert (report.results["created"], report.failed) == (1, {})


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_send_batch_retries_only_lines_that_a_busy_server_refused(status: int) -> None:
    post = Script(
        answer((201, "created"), (status, "full"), (201, "created"), (status, "full")),
        answer((status, "full"), (201, "created")),
        answer((201, "created")),
    )
    report = send_batch(lines("a", "b", "c", "d"), post, is_retryable, 9)
    assert post.bodies == [b"<a><b><c><d>", b"<b><d>", b"<b>"]
    assert report == Report(report.results, {}, busy=2)
    assert report.results["created"] == 4


def test_retry_timeout_counts_from_the_last_accepted_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    names = "abcdefgh"
    answers = []
    for left in reversed(range(len(names))):
        answers += [answer(*[(429, "full")] * (left + 1))] * 2
        answers.append(answer((201, "created"), *[(429, "full")] * left))
    report = send_batch(lines(*names), Script(*answers), is_retryable, 1.5)
    assert report.results["created"] == len(names)
    assert now[0] > 1.5


def test_send_batch_reports_refused_lines_without_retries() -> None:
    post = Script(
        answer((400, "no number"), (201, "created"), (429, "full"), (409, "newer")),
        answer((201, "created")),
    )
    report = send_batch(lines("a", "b", "c", "d"), post, is_retryable, 9)
    assert post.bodies == [b"<a><b><c><d>", b"<c>"]
    assert report.failed == {"a": "no number", "d": "newer"}
    assert report.results == {"created": 2}


@pytest.mark.parametrize(
    "error", [LOST, ServerFailure("late", 0, "timeout"), ServerFailure("busy", 503, "x")]
)
def test_send_batch_retries_failed_requests(error: Exception) -> None:
    post = Script(error, error, answer((201, "created"), (200, "updated")))
    assert send_batch(lines("a", "b"), post, is_retryable, 9).stored == 2
    assert post.bodies == [b"<a><b>"] * 3


@pytest.mark.parametrize(
    "error", [PERMANENT, ServerFailure("bad", 400, "x"), ZeroDivisionError("bug")]
)
def test_send_batch_raises_permanent_errors_at_once(error: Exception) -> None:
    post = Script(error)
    with pytest.raises(type(error), match=str(error)):
        send_batch(lines("a"), post, is_retryable, 9)
    assert len(post.bodies) == 1


def test_send_batch_raises_after_the_retry_timeout() -> None:
    with pytest.raises(ServerFailure, match="gone"):
        send_batch(lines("a"), Script(*[LOST] * 99), is_retryable, 0.3)
    with pytest.raises(ServerFailure, match="full") as busy:
        send_batch(lines("a"), Script(*[answer((429, "full"))] * 99), is_retryable, 0.3)
    assert (busy.value.status, busy.value.reason) == (429, "full")


# ---- requests that are too large, answers that are lost or of another kind ----------------------


class Limited:
    """A ``post`` function that refuses bodies above ``limit`` bytes and stores the others."""

    def __init__(self, limit: int, failure: ServerFailure) -> None:
        self.limit, self.failure = limit, failure
        self.sizes: list[int] = []
        self.stored: list[str] = []

    def __call__(self, body: bytes) -> Any:
        self.sizes.append(len(body))
        if len(body) > self.limit:
            raise self.failure
        ids = body.decode().strip("<>").split("><")
        self.stored += ids
        return {"items": [{"index": {"_id": i, "status": 201, "result": "created"}} for i in ids]}


TOO_LARGE = ServerFailure("refused (413)", 413, "too large")
BREAKER = ServerFailure("busy", 429, "[in_flight_requests] Data too large, would be [9/9b]")


@pytest.mark.parametrize("failure", [TOO_LARGE, BREAKER])
def test_batch_that_is_too_large_is_sent_in_halves(failure: ServerFailure) -> None:
    post = Limited(40, failure)
    ids = [f"d{number:02}" for number in range(23)]
    report = send_batch(lines(*ids), post, is_retryable, 9, is_repeated=is_repeated)
    assert sorted(post.stored) == ids and report.stored == 23


def test_batches_after_one_that_was_too_large_are_divided_before() -> None:
    post = Limited(40, TOO_LARGE)
    source = [lines(*(f"{batch}{number:02}" for number in range(20))) for batch in "abcd"]
    report = send(iter(source), post, is_retryable, is_repeated=is_repeated, workers=1)
    assert report.stored == 80
    assert sum(size > 40 for size in post.sizes) <= 4  # of the first batch alone


def test_document_that_is_too_large_is_named() -> None:
    post = Limited(6, TOO_LARGE)
    with pytest.raises(ServerFailure, match="'wide-one' has 10 bytes") as failed:
        send_batch(lines("a", "b", "wide-one", "c"), post, is_retryable, 9)
    assert failed.value.status == 413


@pytest.mark.parametrize(
    "other",
    [
        {},
        [],
        {"items": None},
        answer((201, "created")),
        answer((201, "created"), (201, "created"), (201, "created")),
        {"items": [{"index": {"status": 201}}] * 2},
        {"items": [{"index": {"status": "201", "result": "created"}}] * 2},
        {"items": [{"index": {"_id": "z", "status": 201, "result": "created"}}] * 2},
        {"items": [{}, {}]},
    ],
)
def test_answer_of_another_kind_is_retried_and_then_an_error(other: Any) -> None:
    right = answer((201, "created"), (201, "created"))
    report = send_batch(lines("a", "b"), Script(other, right), is_retryable, 9)
    assert report.stored == 2
    post = Script(*[other] * 99)
    with pytest.raises(ServerFailure) as failed:
        send_batch(lines("a", "b"), post, is_retryable, 9, is_repeated=is_repeated)
    assert failed.value.reason == "answer" and len(post.bodies) == 3


def test_deletion_whose_answer_was_lost_is_counted_as_unknown() -> None:
    def found(status: int, word: str) -> Any:
        return {"delete": {"status": status, "result": word}}

    after = {"items": [found(404, "not_found"), found(200, "deleted")]}
    for failure in (LOST, ServerFailure("bad gateway", 502, "x"), {"items": []}):
        report = send_batch(lines("a", "b"), Script(failure, after), is_retryable, 9)
        assert report.results == {"unknown": 1, "deleted": 1}
    refused = ServerFailure("full", 429, "x")  # before any change
    report = send_batch(lines("a", "b"), Script(refused, after), is_retryable, 9)
    assert report.results == {"not_found": 1, "deleted": 1}


def test_index_that_was_deleted_ends_a_bulk() -> None:
    error = {"type": "index_not_found_exception", "reason": "no such index [x]"}
    gone = {"items": [{"index": {"status": 404, "error": error}}] * 2}
    with pytest.raises(IndexMissing, match="no such index"):
        send_batch(lines("a", "b"), Script(gone), is_retryable, 9)


def test_block_of_a_full_disk_is_not_retried() -> None:
    error = {"type": "cluster_block_exception", "reason": "flood-stage watermark"}
    report = send_batch(
        lines("a"), Script({"items": [{"index": {"status": 429, "error": error}}]}), is_retryable, 9
    )
    assert report.failed == {"a": "flood-stage watermark"}


# ---- many batches ----------------------------------------------------------------------------


class SlowPost:
    """A slow ``post`` function that counts concurrent calls."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls = self.max_calls = 0

    def __call__(self, body: bytes) -> Any:
        with self.lock:
            self.calls += 1
            self.max_calls = max(self.max_calls, self.calls)
        threading.Event().wait(0.01)
        with self.lock:
            self.calls -= 1
        return answer((201, "created"))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_send_uses_all_workers_and_keeps_few_batches(workers: int) -> None:
    sent: list[str] = []
    unsent: list[int] = []
    post = SlowPost()

    def source() -> Iterator[Batch]:
        for number in range(40):
            unsent.append(number - len(sent))
            yield lines(str(number))

    def on_sent(batch: Batch, report: Report) -> None:
        assert report.stored == len(batch)
        sent.extend(line.id for line in batch)

    report = send(source(), post, is_retryable, workers=workers, retry_timeout=9, on_sent=on_sent)
    assert report.stored == 40
    assert sorted(sent, key=int) == [str(number) for number in range(40)]
    assert max(unsent) < 2 * workers
    assert post.max_calls == workers


class FullQueue(SlowPost):
    """A server that accepts one request at a time and answers 429 to all others."""

    refused = 0

    def __call__(self, body: bytes) -> Any:
        with self.lock:
            is_free = self.calls == 0
            self.refused += not is_free
        return super().__call__(body) if is_free else answer((429, "full"))


def test_busy_server_gets_fewer_requests_and_no_line_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = RequestLimit(8)
    for _ in range(5):
        limits.adapt(busy=True)
    assert limits.present == 1
    for _ in range(40):
        limits.adapt(busy=False)
    assert limits.present == 8

    refused = []
    for adapt in (RequestLimit.adapt, lambda self, busy: None):
        monkeypatch.setattr(RequestLimit, "adapt", adapt)
        post = FullQueue()
        report = send((lines(str(n)) for n in range(30)), post, is_retryable, workers=8)
        assert (report.results, report.failed) == ({"created": 30}, {})
        assert report.busy == post.refused
        refused.append(post.refused)
    assert refused[0] < refused[1] / 2


def test_send_stops_at_the_first_permanent_error() -> None:
    made: list[int] = []
    sent: list[str] = []

    def source() -> Iterator[Batch]:
        for number in range(1000):
            made.append(number)
            yield lines(str(number))

    def post(body: bytes) -> Any:
        threading.Event().wait(0.005)
        if body == b"<5>":
            raise PERMANENT
        return answer((201, "created"))

    with pytest.raises(ServerFailure, match="no"):
        send(source(), post, is_retryable, on_sent=lambda batch, _: sent.append(batch[0].id))
    assert len(made) < 100
    assert "5" not in sent


def test_send_raises_errors_of_the_source() -> None:
    def source() -> Iterator[Batch]:
        yield lines("a")
        raise OSError("no such picture")

    with pytest.raises(OSError, match="no such picture"):
        send(source(), SlowPost(), is_retryable)


def test_send_without_batches_sends_nothing() -> None:
    assert send([], Script(), is_retryable) == Report()

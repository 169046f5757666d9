"""Documents -> bulk bodies -> a server that is busy, lost or refuses some of them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, ServerFailure
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.bulk import Batch, Line, Report, batches, send, send_batch
from xmodal_opensearch.client.server import passing
from xmodal_opensearch.index.bulk_lines import index_line
from xmodal_opensearch.index.mapping import LAYOUTS, SELF_TEST_ID
from xmodal_opensearch.index.store import open_opensearch

LOST = ServerFailure("gone", 0, "connection")
HARD = ServerFailure("no", 403, "forbidden")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of each pause."""
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(seconds / 100))


def lines(*ids: str) -> Batch:
    return [Line(id_, f"<{id_}>".encode()) for id_ in ids]


def answer(*told: tuple[int, str]) -> dict[str, Any]:
    """What a server says of each line: status, and a result or the reason of an error."""
    return {
        "items": [
            {"index": {"status": status, "result": word}}
            if status < 300
            else {"index": {"status": status, "error": {"type": "t", "reason": word}}}
            for status, word in told
        ]
    }


class Script:
    """A ``post`` that answers (or raises) what was written down, and remembers the bodies."""

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


def test_the_bytes_of_a_whole_document() -> None:
    line = index_line("é", {"image_code": [-128, 1]}, {"caption": "日本", "n": 1.0, "yes": True})
    assert line.id == "é"
    assert line.body.decode() == (
        '{"index":{"_id":"é"}}\n'
        '{"caption": "日本", "n": 1, "yes": true, "xmodal":{"id":"é"},"image_code":[-128,1]}\n'
    )


def test_a_document_without_fields_or_codes() -> None:
    head = '{"index":{"_id":"a"}}\n'
    assert index_line("a", {}, {}).body.decode() == head + '{"xmodal":{"id":"a"}}\n'
    assert index_line("a", {"text_code": [1]}, {}).body.decode() == (
        head + '{"xmodal":{"id":"a"},"text_code":[1]}\n'
    )


@given(
    id_=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    fields=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(lambda name: f"f{name}"),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])) | st.lists(st.integers()),
    ),
)  # fmt: skip
def test_a_line_is_two_lines_of_json_whatever_is_in_it(id_: str, fields: dict[str, Any]) -> None:
    head, source, rest = index_line(id_, {"image_code": [1]}, fields).body.split(b"\n")
    assert json.loads(head) == {"index": {"_id": id_}}
    assert json.loads(source) == fields | {"xmodal": {"id": id_}, "image_code": [1]}
    assert rest == b""


def test_whole_floats_are_written_as_integers_at_any_depth() -> None:
    fields = {"a": 10.0, "b": [1.0, 1.5, -0.0], "c": {"d": 2.0}, "e": (3.0,), "f": 1e20}
    source = json.loads(index_line("a", {}, fields).body.split(b"\n")[1])
    del source["xmodal"]
    expected = {"a": 10, "b": [1, 1.5, 0], "c": {"d": 2}, "e": [3], "f": 10**20}
    assert repr(source) == repr(expected)
    assert fields["a"] == 10.0 and isinstance(fields["a"], float)  # the caller's stay


@pytest.mark.parametrize(
    "name", ["xmodal", "image_code", "text_code", "self_test_code", "xmodal.id", "image_code.w0"]
)
def test_names_that_are_ours_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'a' have one called '{name}', which is ours"):
        index_line("a", {}, {"x": 1, name: 2})
    index_line("a", {}, {"deep": {name: 2}, f"x.{name}": 3, f"my_{name}": 4})


@pytest.mark.parametrize("id_", ["a" * 513, "é" * 257, "日" * 171, SELF_TEST_ID])
def test_ids_that_a_server_does_not_take_are_refused(id_: str) -> None:
    with pytest.raises(ConfigError, match=r"OpenSearch takes 512|self-test document"):
        bulk.check_id(id_)
    assert not bulk.is_usable(id_)


@pytest.mark.parametrize("id_", ["a" * 512, "é" * 256, "日" * 170, SELF_TEST_ID + "s"])
def test_ids_up_to_512_bytes_are_taken(id_: str) -> None:
    bulk.check_id(id_)
    assert bulk.is_usable(id_)


def test_every_line_is_checked_before_the_first_is_sent() -> None:
    codes = BinaryCodes.from_hex(["01", "02"])
    made = bulk.index_lines(["a", "b"], {"image": codes, "text": None}, None, LAYOUTS["faiss"])
    assert [line.body.split(b"\n")[1] for line in made] == [
        b'{"xmodal":{"id":"a"},"image_code":[1]}',
        b'{"xmodal":{"id":"b"},"image_code":[2]}',
    ]
    fields = [{"x": 1}, {"x": float("inf")}]
    with pytest.raises(ConfigError, match="fields of 'b' cannot be stored"):
        list(bulk.index_lines(["a", "b"], {"image": codes}, fields, LAYOUTS["faiss"]))


def test_updates_and_deletions() -> None:
    assert bulk.update_line("é", {"a": "é"}).body.decode() == (
        '{"update": {"_id": "é"}}\n{"doc": {"a": "é"}}\n'
    )
    seen = bulk.update_line("a", {"a": 1}, seen=(5, 2)).body.split(b"\n")[0]
    assert json.loads(seen) == {"update": {"_id": "a", "if_seq_no": 5, "if_primary_term": 2}}
    routed = bulk.update_line("a", {"a": 1}, routing="r").body.split(b"\n")[0]
    assert json.loads(routed) == {"update": {"_id": "a", "routing": "r"}}
    assert bulk.delete_line("é").body.decode() == '{"delete": {"_id": "é"}}\n'


# ---- batches ---------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(1, 30), max_size=40),
    count=st.integers(1, 7),
    size=st.integers(1, 60),
)
def test_batches_hold_every_line_in_order_and_are_as_large_as_allowed(
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
        held = sum(len(line.body) for line in batch)
        assert len(batch) == count or held + len(following[0].body) > size


def test_batches_are_made_as_they_are_taken() -> None:
    def endless() -> Iterator[Line]:
        while True:
            yield Line("a", b"x")

    made = batches(endless(), 3)
    assert [len(next(made)), len(next(made))] == [3, 3]


# ---- one batch -------------------------------------------------------------------------------


def test_what_was_taken_is_counted() -> None:
    post = Script(answer((201, "created"), (200, "updated"), (200, "deleted"), (200, "noop")))
    report = send_batch(lines("a", "b", "c", "d"), post, passing, 9)
    assert post.bodies == [b"<a><b><c><d>"]
    assert report.results == {"created": 1, "updated": 1, "deleted": 1, "noop": 1}
    assert (report.stored, report.failed) == (3, {})


def test_what_a_lost_node_did_not_store_is_sent_again() -> None:
    gone = {"type": "node_not_connected_exception", "reason": "node left"}
    lost = {"items": [{"index": {"status": 500, "error": gone}}]}
    report = send_batch(lines("a"), Script(lost, answer((201, "created"))), passing, 9)
    assert (report.results["created"], report.failed) == (1, {})


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_only_what_a_busy_server_left_is_sent_again(status: int) -> None:
    post = Script(
        answer((201, "created"), (status, "full"), (201, "created"), (status, "full")),
        answer((status, "full"), (201, "created")),
        answer((201, "created")),
    )
    report = send_batch(lines("a", "b", "c", "d"), post, passing, 9)
    assert post.bodies == [b"<a><b><c><d>", b"<b><d>", b"<b>"]
    assert report == Report(report.results, {})
    assert report.results["created"] == 4


def test_what_is_refused_is_named_and_not_sent_again() -> None:
    post = Script(
        answer((400, "no number"), (201, "created"), (429, "full"), (409, "newer")),
        answer((201, "created")),
    )
    report = send_batch(lines("a", "b", "c", "d"), post, passing, 9)
    assert post.bodies == [b"<a><b><c><d>", b"<c>"]
    assert report.failed == {"a": "no number", "d": "newer"}
    assert report.results == {"created": 2}


@pytest.mark.parametrize(
    "error", [LOST, ServerFailure("late", 0, "timeout"), ServerFailure("busy", 503, "x")]
)
def test_a_whole_batch_that_was_lost_is_sent_again(error: Exception) -> None:
    post = Script(error, error, answer((201, "created"), (200, "updated")))
    assert send_batch(lines("a", "b"), post, passing, 9).stored == 2
    assert post.bodies == [b"<a><b>"] * 3


@pytest.mark.parametrize("error", [HARD, ServerFailure("bad", 400, "x"), ZeroDivisionError("bug")])
def test_what_will_not_pass_is_raised_at_once(error: Exception) -> None:
    post = Script(error)
    with pytest.raises(type(error), match=str(error)):
        send_batch(lines("a"), post, passing, 9)
    assert len(post.bodies) == 1


def test_patience_ends() -> None:
    with pytest.raises(ServerFailure, match="gone"):
        send_batch(lines("a"), Script(*[LOST] * 99), passing, 0.3)
    with pytest.raises(ServerFailure, match="server is busy: full") as busy:
        send_batch(lines("a"), Script(*[answer((429, "full"))] * 99), passing, 0.3)
    assert (busy.value.status, busy.value.reason) == (429, "full")


# ---- many batches ----------------------------------------------------------------------------


class Pool:
    """A ``post`` that takes its time, and counts what is under way."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, body: bytes) -> Any:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        threading.Event().wait(0.01)
        with self.lock:
            self.now -= 1
        return answer((201, "created"))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_send_at_the_same_time_and_hold_few_batches(workers: int) -> None:
    taken: list[str] = []
    held: list[int] = []
    post = Pool()

    def every() -> Iterator[Batch]:
        for number in range(40):
            held.append(number - len(taken))
            yield lines(str(number))

    def done(batch: Batch, report: Report) -> None:
        assert report.stored == len(batch)
        taken.extend(line.id for line in batch)

    report = send(every(), post, passing, workers=workers, patience=9, done=done)
    assert report.stored == 40
    assert sorted(taken, key=int) == [str(number) for number in range(40)]
    assert max(held) < 2 * workers  # with the one that is being made: never more than twice
    assert post.most == workers


def test_it_stops_at_the_first_hard_error() -> None:
    made: list[int] = []
    done: list[str] = []

    def every() -> Iterator[Batch]:
        for number in range(1000):
            made.append(number)
            yield lines(str(number))

    def post(body: bytes) -> Any:
        threading.Event().wait(0.005)
        if body == b"<5>":
            raise HARD
        return answer((201, "created"))

    with pytest.raises(ServerFailure, match="no"):
        send(every(), post, passing, done=lambda batch, _: done.append(batch[0].id))
    assert len(made) < 100
    assert "5" not in done


def test_an_error_of_the_source_is_not_lost() -> None:
    def every() -> Iterator[Batch]:
        yield lines("a")
        raise OSError("no such picture")

    with pytest.raises(OSError, match="no such picture"):
        send(every(), Pool(), passing)


def test_nothing_is_sent_for_nothing() -> None:
    assert send([], Script(), passing) == Report()


# ---- the real node ---------------------------------------------------------------------------


def test_sending_twice_is_storing_once(address: Callable[..., str]) -> None:
    ids = [f"{number:04d}" for number in range(1000)]
    codes = BinaryCodes.from_hex([f"{number:04x}" for number in range(1000)])
    with open_opensearch(address(), bits=16, create=True) as index:
        made = [*bulk.index_lines(ids, {"image": codes}, None, index.handle.layout)]
        for result in ("created", "updated"):
            report = index.handle.send(batches(made, 64), workers=3)
            assert (report.results, report.failed) == ({result: 1000}, {})
            assert len(index) == 1000
        found, stored = index.get(ids).codes("image")
        assert (found, stored) == (ids, codes)
        # A changed document is not written by whoever saw an older one.
        stale = bulk.update_line("0000", {"n": 1}, seen=(0, 1))
        report = index.handle.send([[stale]])
        assert "version conflict" in report.failed["0000"]

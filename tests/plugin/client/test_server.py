"""What servers answer when they are busy, broken or no OpenSearch: patience, or one clear line."""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.endpoint import Asked, Endpoint, Reply

from xmodal.errors import IndexFailure, IndexMissing, ServerFailure
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import PATIENCE, Server, passing

BUSY = {"error": {"type": "cluster_block_exception", "reason": "not yet recovered"}, "status": 503}
LOST = {
    "error": {
        "type": "search_phase_execution_exception",
        "reason": "",
        "failed_shards": [{"reason": {"type": "node_not_connected_exception", "reason": "gone"}}],
    },
    "status": 500,
}
HALF = {"_shards": {"total": 2, "failed": 1, "failures": [{"reason": {"reason": "node left"}}]}}
WHOLE = {"_shards": {"total": 2, "failed": 0}, "fine": True}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of each pause."""
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(seconds / 10))


def scripted(*replies: Reply | dict[str, Any]) -> Callable[[Asked], Reply]:
    """Greets as OpenSearch does, then answers one reply after the other, the last one for ever."""
    left = list(replies)

    def reply(asked: Asked) -> Reply:
        if asked.path == "/":
            return Reply()
        told = left.pop(0) if len(left) > 1 else left[0]
        return told if isinstance(told, Reply) else Reply(body=told)

    return reply


def connect(*ports: int, patience: float = PATIENCE) -> Server:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return Server(parse_address(f"opensearch://{hosts}", index_needed=False), patience=patience)


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


# ---- connecting ------------------------------------------------------------------------------


def test_no_server_is_told_at_once() -> None:
    port = closed_port()
    began = time.monotonic()
    with pytest.raises(ServerFailure) as failed:
        connect(port)
    assert time.monotonic() - began < 5
    assert str(failed.value).startswith(
        f"no server answers at opensearch://127.0.0.1:{port} while connecting ("
    )
    assert str(failed.value).endswith("A node for development: xmodal-opensearch node")
    assert "\n" not in str(failed.value)


def test_a_name_that_nobody_has_is_told() -> None:
    address = parse_address("opensearch://no-such-host.invalid?tls=no", index_needed=False)
    with pytest.raises(ServerFailure, match="no server answers at opensearch://no-such-host"):
        Server(address)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            Reply(body={"version": {"number": "8.15.0"}, "tagline": "You Know, for Search"}),
            "is Elasticsearch or something else 8.15.0, expected OpenSearch 2.19 or 3.x",
        ),
        (Reply(body={"hello": "world"}), "is Elasticsearch or something else, expected"),
        (Reply(body={"version": "1.2"}), "is Elasticsearch or something else, expected"),
        (Reply(body=["a"]), "is Elasticsearch or something else, expected"),
        (Reply(body="hello", kind="text/plain"), "Elasticsearch or something else, expected"),
        (Reply(body=""), "is Elasticsearch or something else, expected"),
        (Reply(body="<html>", kind="text/html"), "connecting failed .*text/html"),
        (Reply(body="{"), "connecting failed"),
        (
            Reply(401, "Unauthorized", "text/plain"),
            r"refused connecting \(401: no user is named, or the password is wrong\): set "
            "XMODAL_OPENSEARCH_USER and XMODAL_OPENSEARCH_PASSWORD",
        ),
        (Reply(403, {"error": {"reason": "no rights"}}), r"403: .* not do that: no rights\): set "),
        (Reply(403, BUSY), r"refused connecting \(403\): not yet recovered$"),
        (
            Reply(400, {"error": {"type": "index_closed_exception", "reason": "closed"}}),
            r"\(400\): the index is closed: open it",
        ),
        (Reply(404, "<html>", "text/html"), r"refused connecting \(404\)"),
        (Reply(500, {"error": {"reason": "broken"}}), r"refused connecting \(500\): broken"),
        (Reply(503, BUSY), r"refused connecting \(503\): not yet recovered"),
    ],
)
def test_a_server_that_is_not_what_we_need_is_told_in_one_line(reply: Reply, words: str) -> None:
    with Endpoint(lambda asked: reply) as endpoint:
        with pytest.raises(IndexFailure, match=words) as failed:
            connect(endpoint.port)
    assert "\n" not in str(failed.value)
    assert len(endpoint.asked) == 1  # a person waits for this answer: it is not asked again


# ---- patience --------------------------------------------------------------------------------


def test_a_node_that_was_just_lost_is_a_reason_to_ask_again() -> None:
    with Endpoint(scripted(Reply(500, LOST), WHOLE)) as endpoint:
        server = connect(endpoint.port)
        assert server.request("GET", "/x", doing="trying") == WHOLE
        server.close()
    with Endpoint(scripted(Reply(500, LOST))) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(ServerFailure, match=r"\(503\): gone") as failed:
            server.request("GET", "/x", doing="trying", patience=0)
        assert passing(failed.value)
        server.close()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int) -> None:
    busy = Reply(status, BUSY)
    with Endpoint(scripted(busy, busy, busy, WHOLE)) as endpoint:
        server = connect(endpoint.port)
        assert server.request("GET", "/x", doing="trying") == WHOLE
        server.close()
    assert [asked.path for asked in endpoint.asked] == ["/", "/x", "/x", "/x", "/x"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
def test_an_answer_that_will_not_change_is_not_asked_for_again(status: int) -> None:
    with Endpoint(scripted(Reply(status, {"error": {"reason": "so it is"}}))) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(ServerFailure, match=str(status)) as failed:
            server.request("GET", "/x", doing="trying")
        server.close()
    assert (failed.value.status, failed.value.reason) == (status, "so it is")
    assert len(endpoint.asked) == 2


def test_an_index_that_is_not_there_is_missing() -> None:
    error = {"error": {"reason": "no such index [x]", "index": "x"}, "status": 404}
    with Endpoint(scripted(Reply(404, error))) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(IndexMissing, match=r"no such index \[x\] \(while trying\)"):
            server.request("GET", "/x", doing="trying")
        server.close()


def test_patience_ends_with_the_last_reason() -> None:
    with Endpoint(scripted(Reply(503, BUSY))) as endpoint:
        server = connect(endpoint.port, patience=1)
        with pytest.raises(ServerFailure, match=r"refused trying \(503\): not yet recovered"):
            server.request("GET", "/x", doing="trying")
        server.close()
    assert len(endpoint.asked) > 4


ALL_SHARDS = {"total": 2, "successful": 2, "skipped": 1, "failed": 0}
FOUND = {"timed_out": False, "_shards": ALL_SHARDS, "hits": {"total": {"value": 7}, "hits": []}}
CUT = FOUND | {"timed_out": True}
UNASSIGNED = {"total": 2, "successful": 1, "skipped": 0, "failed": 0}
UNREAD = {
    "docs": [
        {"_index": "x", "_id": "a", "found": False},
        {"_index": "x", "_id": "b", "error": {"type": "unavailable", "reason": "shard is away"}},
    ]
}


@pytest.mark.parametrize(
    ("partial", "reason"),
    [
        (HALF, "1 shards failed while trying: node left"),
        (CUT, "cut short while trying: .*search.default_search_timeout"),
        (FOUND | {"_shards": UNASSIGNED}, "1 of 2 shards did not answer while trying"),
        ({"pit_id": "p", "_shards": UNASSIGNED}, "1 of 2 shards did not answer while trying"),
        (UNREAD, "document 'b' was not read while trying: shard is away"),
    ],
    ids=["failed", "timed out", "unassigned", "point in time", "unread"],
)
def test_an_answer_of_a_part_of_the_index_is_an_error(partial: Any, reason: str) -> None:
    with Endpoint(scripted(partial, partial, WHOLE)) as endpoint:
        server = connect(endpoint.port)
        assert server.request("POST", "/x", {}, doing="trying") == WHOLE
        server.close()
    assert len(endpoint.asked) == 4
    together = {"responses": [FOUND, partial]}
    for reply, ask in (
        (partial, lambda server: server.request("POST", "/x", {}, doing="trying")),
        (partial, lambda server: server.search_many("x", [{}], doing="trying")),
        (together, lambda server: server.search_many("x", [{}, {}], doing="trying")),
    ):
        with Endpoint(scripted(reply)) as endpoint:
            server = connect(endpoint.port, patience=0)
            with pytest.raises(ServerFailure, match=reason) as failed:
                ask(server)
            assert failed.value.status == 503 and "\n" not in str(failed.value)
            server.close()


@pytest.mark.parametrize(
    "whole",
    [
        FOUND,
        FOUND | {"terminated_early": True},  # a complete aggregation of a real node
        {"_shards": UNASSIGNED},  # a refresh counts copies that are not assigned
        {"docs": [{"_index": "x", "_id": "a", "found": False}]},
        {"docs": [{"error": {"reason": "a simulated pipeline"}}]},
    ],
)
def test_an_answer_of_the_whole_index_is_returned_at_once(whole: Any) -> None:
    with Endpoint(scripted(whole)) as endpoint:
        server = connect(endpoint.port, patience=0)
        assert server.request("POST", "/x", {}, doing="trying") == whole
        server.close()


def test_documents_are_counted_by_a_search() -> None:
    with Endpoint(scripted(FOUND, CUT)) as endpoint:
        server = connect(endpoint.port, patience=0)
        assert server.count("x", {"match_all": {}}) == 7
        with pytest.raises(ServerFailure, match="cut short while counting"):
            server.count("x", {"match_all": {}})
        server.close()
    assert {asked.path for asked in endpoint.asked[1:]} == {"/x/_search"}
    assert json.loads(endpoint.asked[1].body)["track_total_hits"] is True


def test_shards_that_stay_away_are_told() -> None:
    with Endpoint(scripted(HALF)) as endpoint:
        server = connect(endpoint.port, patience=0.5)
        with pytest.raises(ServerFailure, match="1 shards failed while searching: node left") as no:
            server.search("/x/_search", {}, doing="searching")
        server.close()
    assert (no.value.status, no.value.reason) == (503, "node left")


def test_several_searches_are_answered_together_or_asked_again() -> None:
    whole = {"responses": [WHOLE, WHOLE]}
    busy = {"responses": [WHOLE, BUSY]}
    with Endpoint(scripted(busy, {"responses": [HALF, WHOLE]}, whole)) as endpoint:
        server = connect(endpoint.port)
        found = server.search_many("x", [{"size": 1}, {"size": 2}], doing="searching")
        server.close()
    assert found == [WHOLE, WHOLE]
    assert [asked.path for asked in endpoint.asked] == ["/"] + ["/x/_msearch"] * 3
    assert endpoint.asked[-1].body == b'{}\n{"size": 1}\n{}\n{"size": 2}\n'


def test_one_bad_search_among_several_is_an_error() -> None:
    bad = {"error": {"reason": "all shards failed", "caused_by": {"reason": "no"}}, "status": 400}
    with Endpoint(scripted({"responses": [WHOLE, bad]})) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(ServerFailure, match=r"refused searching \(400\): no$"):
            server.search_many("x", [{}, {}], doing="searching")
        server.close()
    assert len(endpoint.asked) == 2


def test_a_lost_connection_is_tried_again_and_then_told() -> None:
    def reply(asked: Asked) -> Reply:
        if asked.path != "/" and len(endpoint.asked) < 4:
            raise ConnectionResetError
        return Reply(body=WHOLE) if asked.path == "/x" else Reply()

    with Endpoint(reply) as endpoint:
        server = connect(endpoint.port)
        assert server.request("GET", "/x", doing="trying") == WHOLE
        assert [asked.path for asked in endpoint.asked] == ["/", "/x", "/x", "/x"]
        server.patience = 0.3
    with pytest.raises(ServerFailure, match=r"no server answers at .* while trying") as failed:
        server.request("GET", "/x", doing="trying")
    assert passing(failed.value)
    server.close()


def test_an_answer_that_takes_too_long_is_told(silent: int) -> None:
    with Endpoint(scripted(WHOLE)) as endpoint:
        server = connect(endpoint.port)
        server.close()
    server._client.transport.set_connections([{"host": "127.0.0.1", "port": silent}])
    with pytest.raises(ServerFailure, match="did not answer in time while trying") as failed:
        server.request("GET", "/x", doing="trying", patience=0, timeout=0.2)
    assert (failed.value.status, failed.value.reason) == (0, "timeout")
    assert passing(failed.value)
    server.close()


def test_a_lost_node_of_several_is_passed_over() -> None:
    with Endpoint(scripted(WHOLE)) as living:
        server = connect(closed_port(), living.port, closed_port())
        for _ in range(6):
            assert server.request("GET", "/x", doing="trying", patience=0) == WHOLE
        server.close()


@pytest.mark.parametrize("status", [429, 503, 400])
def test_a_bulk_body_is_sent_once(status: int) -> None:
    with Endpoint(scripted(Reply(status, BUSY))) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(ServerFailure, match=f"refused storing documents .{status}") as failed:
            server.bulk("x", b"{}\n")
        server.close()
    [(path, body)] = [(asked.path, asked.body) for asked in endpoint.asked[1:]]
    assert (path.partition("?")[0], body) == ("/x/_bulk", b"{}\n")
    assert passing(failed.value) == (status != 400)


# ---- what is said ----------------------------------------------------------------------------


def test_the_first_and_the_innermost_reason_are_told_in_one_line() -> None:
    told = {
        "error": {
            "type": "search_phase_execution_exception",
            "reason": "all shards failed",
            "failed_shards": [
                {
                    "reason": {
                        "reason": "failed to\nparse [day]",
                        "caused_by": {"reason": "x" * 1000},
                    }
                }
            ],
        }
    }
    with Endpoint(scripted(Reply(400, told))) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(ServerFailure) as failed:
            server.request("GET", "/x", doing="trying")
        server.close()
    assert re.fullmatch(r"failed to parse \[day\]: x+", failed.value.reason)
    assert len(failed.value.reason) == 300


def test_failures_that_are_mended_are_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    handlers = logging.getLogger("opensearch").handlers
    assert any(isinstance(one, logging.NullHandler) for one in handlers)
    with Endpoint(scripted(Reply(503, BUSY), WHOLE)) as endpoint:
        server = connect(endpoint.port)
        server.request("GET", "/x", doing="trying")
        server.close()
    assert capfd.readouterr() == ("", "")


def test_the_real_node_tells_what_is_wrong(node_url: str) -> None:
    server = connect(int(node_url.rpartition(":")[2]))
    with pytest.raises(IndexMissing, match=r"no such index \[no-such-index\]"):
        server.search("/no-such-index/_search", {}, doing="searching")
    with pytest.raises(ServerFailure, match=r"400.*unknown query") as failed:
        server.search("/_search", {"query": {"none": {}}}, doing="searching")
    assert "\n" not in str(failed.value)
    answers = server.search_many("_all", [{"size": 0}, {"size": 0}], doing="searching")
    assert json.dumps(answers).count('"failed": 0') == 2
    server.close()


def test_a_token_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    tracer = logging.getLogger("opensearchpy.trace")
    body = {"name": "ours", "credential": {"token": 'a-"}\\-secret'}, "actions": []}
    tracer.addHandler(caplog.handler)
    try:
        caplog.set_level(logging.DEBUG, "opensearch")
        caplog.set_level(logging.DEBUG, tracer.name)
        with Endpoint(scripted(Reply(body=body), Reply(400, body))) as endpoint:
            server = connect(endpoint.port)
            server.request("POST", "/_plugins/_ml/connectors/_create", body, doing="making")
            with pytest.raises(IndexFailure):
                server.request("PUT", "/_plugins/_ml/connectors/a", body, doing="changing")
            server.close()
    finally:
        tracer.removeHandler(caplog.handler)
    assert b"-secret" in endpoint.asked[-1].body
    assert "-secret" not in caplog.text
    assert caplog.text.count("not logged") >= 6 and "actions" in caplog.text

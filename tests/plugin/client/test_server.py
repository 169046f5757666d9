"""``Server`` at an endpoint with fixed replies: retries, incomplete answers, errors of one line."""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.endpoint import Endpoint, Reply, Request

from xmodal.errors import IndexFailure, IndexMissing, ServerFailure
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import RETRY_TIMEOUT, Server, is_retryable

BUSY = {"error": {"type": "cluster_block_exception", "reason": "not yet recovered"}, "status": 503}
REJECTED = {"error": {"type": "rejected_execution_exception", "reason": "full"}, "status": 429}
LOST = {
    "error": {
        "type": "search_phase_execution_exception",
        "reason": "",
        "failed_shards": [{"reason": {"type": "node_not_connected_exception", "reason": "gone"}}],
    },
    "status": 500,
}
HALF = {"_shards": {"total": 2, "failed": 1, "failures": [{"reason": {"reason": "node left"}}]}}
WHOLE = {
    "timed_out": False,
    "_shards": {"total": 2, "successful": 2, "failed": 0},
    "hits": {"total": {"value": 7, "relation": "eq"}, "hits": []},
    "fine": True,
}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of each pause."""
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(seconds / 10))


def scripted(*replies: Reply | dict[str, Any]) -> Callable[[Request], Reply]:
    """A reply to ``GET /`` as of OpenSearch, then each reply once and the last one for ever."""
    left = list(replies)

    def reply(request: Request) -> Reply:
        if request.path == "/":
            return Reply()
        following = left.pop(0) if len(left) > 1 else left[0]
        return following if isinstance(following, Reply) else Reply(body=following)

    return reply


def connect(*ports: int, retry_timeout: float = RETRY_TIMEOUT) -> Server:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return Server(
        parse_address(f"opensearch://{hosts}", index_needed=False), retry_timeout=retry_timeout
    )


def closed_port() -> int:
    """A port without a listener."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


# ---- connecting ------------------------------------------------------------------------------


def test_connecting_without_a_server_fails_at_once() -> None:
    port = closed_port()
    began = time.monotonic()
    with pytest.raises(ServerFailure) as failed:
        connect(port)
    assert time.monotonic() - began < 5
    assert failed.value.reason == "connection"
    assert f"opensearch://127.0.0.1:{port} while connecting" in str(failed.value)
    assert "\n" not in str(failed.value)


def test_connecting_to_an_unknown_host_fails() -> None:
    address = parse_address("opensearch://no-such-host.invalid?tls=no", index_needed=False)
    with pytest.raises(ServerFailure, match=r"opensearch://no-such-host\.invalid"):
        Server(address)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            Reply(body={"version": {"number": "8.15.0"}, "tagline": "You Know, for Search"}),
            r"is Elasticsearch 8\.15\.0, expected OpenSearch",
        ),
        (Reply(body={"hello": "world"}), "expected OpenSearch"),
        (Reply(body={"version": "1.2"}), "expected OpenSearch"),
        (Reply(body=["a"]), "no JSON object"),
        (Reply(body="hello", content_type="text/plain"), "no JSON object"),
        (Reply(body=""), "no JSON object"),
        (Reply(body="<html>", content_type="text/html"), "unusable answer .*text/html"),
        (Reply(body="{"), "unusable answer while connecting .*not JSON"),
        (
            Reply(401, "Unauthorized", "text/plain"),
            "401.*XMODAL_OPENSEARCH_USER and XMODAL_OPENSEARCH_PASSWORD",
        ),
        (Reply(403, {"error": {"reason": "no rights"}}), "403.*no rights.*XMODAL_OPENSEARCH_USER"),
        (Reply(403, BUSY), r"refused connecting \(403\): not yet recovered$"),
        (
            Reply(400, {"error": {"type": "index_closed_exception", "reason": "closed"}}),
            "400.*the index is closed",
        ),
        (
            Reply(
                body={
                    "version": {"number": "7.10.2"},
                    "tagline": "The OpenSearch Project: https://opensearch.org/",
                }
            ),
            r"calls itself 7\.10\.2 because of compatibility\.override_main_response_version",
        ),
        (Reply(404, "<html>", "text/html"), r"no OpenSearch at this path \(404\).*/PATH/INDEX"),
        (Reply(500, {"error": {"reason": "broken"}}), r"refused connecting \(500\): broken"),
        (Reply(503, BUSY), r"refused connecting \(503\): not yet recovered"),
    ],
)
def test_connecting_to_an_unusable_server_fails_in_one_line(reply: Reply, words: str) -> None:
    with Endpoint(lambda request: reply) as endpoint:
        with pytest.raises(IndexFailure, match=words) as failed:
            connect(endpoint.port)
    assert "\n" not in str(failed.value)
    assert len(endpoint.requests) == 1  # without retries


# ---- retries ---------------------------------------------------------------------------------


def test_request_to_a_lost_node_is_retried() -> None:
    with Endpoint(scripted(Reply(500, LOST), WHOLE)) as endpoint:
        server = connect(endpoint.port)
        assert server.request("GET", "/_x", doing="trying") == WHOLE
        server.close()
    with Endpoint(scripted(Reply(500, LOST))) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(ServerFailure, match=r"\(503\): gone") as failed:
            server.request("GET", "/_x", doing="trying", retry_timeout=0)
        assert is_retryable(failed.value)
        server.close()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_request_to_a_busy_server_is_retried(status: int) -> None:
    busy = Reply(status, REJECTED if status == 429 else BUSY)
    with Endpoint(scripted(busy, busy, busy, WHOLE)) as endpoint:
        server = connect(endpoint.port)
        assert server.request("GET", "/_x", doing="trying") == WHOLE
        server.close()
    assert [request.path for request in endpoint.requests] == ["/", "/_x", "/_x", "/_x", "/_x"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
def test_permanent_failure_is_not_retried(status: int) -> None:
    with Endpoint(scripted(Reply(status, {"error": {"reason": "so it is"}}))) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(ServerFailure, match=str(status)) as failed:
            server.request("GET", "/_x", doing="trying")
        server.close()
    assert (failed.value.status, failed.value.reason) == (status, "so it is")
    assert len(endpoint.requests) == 2


def test_missing_index_raises_index_missing() -> None:
    error = {"error": {"reason": "no such index [x]", "index": "x"}, "status": 404}
    with Endpoint(scripted(Reply(404, error))) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(IndexMissing, match=r"no such index \[x\]"):
            server.request("GET", "/_x", doing="trying")
        server.close()


def test_retry_timeout_ends_retries_with_the_last_reason() -> None:
    with Endpoint(scripted(Reply(503, BUSY))) as endpoint:
        server = connect(endpoint.port, retry_timeout=1)
        with pytest.raises(ServerFailure, match=r"503.*not yet recovered"):
            server.request("GET", "/_x", doing="trying")
        server.close()
    assert len(endpoint.requests) > 4


ALL_SHARDS = {"total": 2, "successful": 2, "skipped": 1, "failed": 0}
FOUND = {
    "timed_out": False,
    "_shards": ALL_SHARDS,
    "hits": {"total": {"value": 7, "relation": "eq"}, "hits": []},
}
TIMED_OUT = FOUND | {"timed_out": True}
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
        (FOUND | HALF, "1 shards failed .*: node left"),
        (FOUND | {"_shards": UNASSIGNED}, "1 of 2 shards"),
        ({"pit_id": "p", "_shards": UNASSIGNED}, "1 of 2 shards"),
        ({"acknowledged": False}, "not all nodes acknowledged"),
    ],
    ids=["failed", "unassigned", "point in time", "acknowledged"],
)
def test_incomplete_answer_is_retried_and_then_an_error(partial: Any, reason: str) -> None:
    path, method, whole = "/x/_search", "POST", WHOLE
    if "acknowledged" in partial:
        path, method, whole = "/x/_mapping", "PUT", {"acknowledged": True}
    with Endpoint(scripted(partial, partial, whole)) as endpoint:
        server = connect(endpoint.port)
        assert server.request(method, path, {}, doing="trying") == whole
        server.close()
    assert len(endpoint.requests) == 4
    several = {"responses": [FOUND, partial]}
    for reply, send in (
        (partial, lambda server: server.request(method, path, {}, doing="trying")),
        (several, lambda server: server.search_many("x", [{}, {}], doing="trying")),
    ):
        if "hits" not in partial and reply is several:
            continue
        with Endpoint(scripted(reply)) as endpoint:
            server = connect(endpoint.port, retry_timeout=0)
            with pytest.raises(ServerFailure, match=reason) as failed:
                send(server)
            assert failed.value.status == 503 and "\n" not in str(failed.value)
            server.close()


def test_unread_document_is_retried_and_then_an_error() -> None:
    read = {"docs": [{"_id": "a", "found": False}, {"_id": "b", "found": True, "_source": {}}]}
    with Endpoint(scripted(UNREAD, read)) as endpoint:
        server = connect(endpoint.port)
        assert server.read_documents("x", ["a", "b"], doing="reading") == read["docs"]
        server.retry_timeout = 0
        server.close()
    with Endpoint(scripted(UNREAD)) as endpoint:
        server = connect(endpoint.port, retry_timeout=0)
        with pytest.raises(ServerFailure, match=r"document 'b' .*: shard is away"):
            server.read_documents("x", ["a", "b"], doing="reading")
        server.close()


def test_search_that_exceeds_the_time_limit_fails_without_retries() -> None:
    several = {"responses": [FOUND, TIMED_OUT]}
    for reply, send in (
        (TIMED_OUT, lambda server: server.search("/x/_search", {}, doing="searching")),
        (several, lambda server: server.search_many("x", [{}, {}], doing="searching")),
    ):
        with Endpoint(scripted(reply)) as endpoint:
            server = connect(endpoint.port)
            with pytest.raises(ServerFailure, match=r"search\.default_search_timeout") as failed:
                send(server)
            server.close()
        assert len(endpoint.requests) == 2
        assert failed.value.reason == "time limit" and not is_retryable(failed.value)
        assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("path", "body", "whole"),
    [
        ("/x/_search", {}, FOUND),
        ("/x/_search", {"size": 0}, FOUND | {"terminated_early": True}),  # with aggregations
        ("/x/_refresh", None, {"_shards": UNASSIGNED}),  # counts copies that are not assigned
        ("/x/_mget", {"ids": ["a"]}, {"docs": [{"_index": "x", "_id": "a", "found": False}]}),
        ("/_ingest/_simulate", {}, {"docs": [{"error": {"reason": "a simulated pipeline"}}]}),
    ],
)
def test_complete_answer_is_returned(path: str, body: Any, whole: Any) -> None:
    with Endpoint(scripted(whole)) as endpoint:
        server = connect(endpoint.port, retry_timeout=0)
        assert server.request("POST", path, body, doing="trying") == whole
        server.close()


def test_count_is_a_search_that_checks_the_answer() -> None:
    with Endpoint(scripted(FOUND, TIMED_OUT)) as endpoint:
        server = connect(endpoint.port, retry_timeout=0)
        assert server.count("x", {"match_all": {}}) == 7
        with pytest.raises(ServerFailure, match="while counting"):
            server.count("x", {"match_all": {}})
        server.close()
    assert {request.path for request in endpoint.requests[1:]} == {"/x/_search"}
    assert json.loads(endpoint.requests[1].body)["track_total_hits"] is True


def test_failed_shards_are_an_error_after_the_retry_timeout() -> None:
    with Endpoint(scripted(HALF)) as endpoint:
        server = connect(endpoint.port, retry_timeout=0.5)
        with pytest.raises(ServerFailure, match="1 shards failed") as failed:
            server.search("/x/_search", {}, doing="searching")
        server.close()
    assert (failed.value.status, failed.value.reason) == (503, "node left")


def test_search_many_is_retried_as_a_whole() -> None:
    whole = {"responses": [WHOLE, WHOLE]}
    busy = {"responses": [WHOLE, BUSY]}
    with Endpoint(scripted(busy, {"responses": [HALF, WHOLE]}, whole)) as endpoint:
        server = connect(endpoint.port)
        found = server.search_many("x", [{"size": 1}, {"size": 2}], doing="searching")
        server.close()
    assert found == [WHOLE, WHOLE]
    assert [request.path for request in endpoint.requests] == ["/"] + ["/x/_msearch"] * 3
    sent = [json.loads(line) for line in endpoint.requests[-1].body.splitlines()]
    none = {"search_pipeline": "_none"}
    assert sent == [{}, none | {"size": 1}, {}, none | {"size": 2}]


def test_search_many_with_an_invalid_search_fails() -> None:
    bad = {"error": {"reason": "all shards failed", "caused_by": {"reason": "no"}}, "status": 400}
    with Endpoint(scripted({"responses": [WHOLE, bad]})) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(ServerFailure, match=r"400\): no$"):
            server.search_many("x", [{}, {}], doing="searching")
        server.close()
    assert len(endpoint.requests) == 2


def test_lost_connection_is_retried_and_then_an_error() -> None:
    def reply(request: Request) -> Reply:
        if request.path != "/" and len(endpoint.requests) < 4:
            raise ConnectionResetError
        return Reply(body=WHOLE) if request.path == "/_x" else Reply()

    with Endpoint(reply) as endpoint:
        server = connect(endpoint.port)
        assert server.request("GET", "/_x", doing="trying") == WHOLE
        assert [request.path for request in endpoint.requests] == ["/", "/_x", "/_x", "/_x"]
        server.retry_timeout = 0.3
    with pytest.raises(ServerFailure, match="while trying") as failed:
        server.request("GET", "/_x", doing="trying")
    assert is_retryable(failed.value)
    server.close()


def test_request_timeout_is_an_error(silent_port: int) -> None:
    with Endpoint(scripted(WHOLE)) as endpoint:
        server = connect(endpoint.port)
        server.close()
    server._client.transport.set_connections([{"host": "127.0.0.1", "port": silent_port}])
    with pytest.raises(ServerFailure, match="while trying") as failed:
        server.request("GET", "/_x", doing="trying", retry_timeout=0, timeout=0.2)
    assert (failed.value.status, failed.value.reason) == (0, "timeout")
    assert is_retryable(failed.value)
    server.close()


def test_request_skips_hosts_that_do_not_answer() -> None:
    with Endpoint(scripted(WHOLE)) as endpoint:
        server = connect(closed_port(), endpoint.port, closed_port())
        for _ in range(6):
            assert server.request("GET", "/_x", doing="trying", retry_timeout=0) == WHOLE
        server.close()


@pytest.mark.parametrize("status", [429, 503, 400])
def test_bulk_is_not_retried(status: int) -> None:
    with Endpoint(scripted(Reply(status, BUSY))) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(ServerFailure, match=f"storing documents.*{status}") as failed:
            server.bulk("x", b"{}\n")
        server.close()
    [(path, body)] = [(request.path, request.body) for request in endpoint.requests[1:]]
    assert (path.partition("?")[0], body) == ("/x/_bulk", b"{}\n")
    assert is_retryable(failed.value) == (status != 400)


def failure(kind: str, status: int, **more: Any) -> dict[str, Any]:
    """An error body as of a search whose shards all failed."""
    inner = {"type": kind, "reason": "[x] Data too large, would be [9/9b]", **more}
    outer = {"type": "search_phase_execution_exception", "reason": "all shards failed"}
    return {"error": outer | {"root_cause": [inner], "caused_by": inner}, "status": status}


BREAKER = "circuit_breaking_exception"


@pytest.mark.parametrize(
    ("status", "body", "attempts"),
    [
        (503, failure("too_many_buckets_exception", 503), 1),
        (429, failure(BREAKER, 429, durability="PERMANENT"), 1),
        (429, failure(BREAKER, 429, durability="TRANSIENT"), 2),  # the same bytes twice
        (429, failure("cluster_block_exception", 429), 1),
    ],
)
def test_failure_that_repeats_is_not_retried(status: int, body: Any, attempts: int) -> None:
    several = Reply(body={"responses": [WHOLE, {"error": body["error"], "status": status}]})
    for reply, queries in ((Reply(status, body), [{}]), (several, [{}, {}])):
        with Endpoint(scripted(reply)) as endpoint:
            server = connect(endpoint.port)
            with pytest.raises(ServerFailure, match="Data too large") as failed:
                server.search_many("x", queries, doing="trying")
            server.close()
        assert failed.value.status == status
        assert len(endpoint.requests) == 1 + attempts


def test_breaker_that_counts_other_bytes_is_retried() -> None:
    replies = [
        Reply(429, failure(BREAKER, 429, durability="TRANSIENT", reason=f"Data too large [{n}]"))
        for n in range(4)
    ]
    with Endpoint(scripted(*replies, WHOLE)) as endpoint:
        server = connect(endpoint.port)
        assert server.search("/x/_search", {}, doing="trying") == WHOLE
        server.close()


def test_search_many_and_read_documents_are_divided_if_they_are_too_large() -> None:
    def reply(request: Request) -> Reply:
        lines = request.body.splitlines()
        if request.path.endswith("_msearch"):
            found = [WHOLE | {"n": json.loads(line)["n"]} for line in lines[1::2]]
            return Reply(413, "<html>", "text/html") if len(found) > 2 else many(found)
        if request.path.endswith("_search"):
            return Reply(body=WHOLE | {"n": json.loads(request.body)["n"]})
        if request.path.endswith("_mget"):
            docs = [{"_id": id_, "found": False} for id_ in json.loads(request.body)["ids"]]
            return (
                Reply(413, "<html>", "text/html") if len(docs) > 3 else Reply(body={"docs": docs})
            )
        return Reply()

    def many(found: list[Any]) -> Reply:
        return Reply(body={"responses": found})

    with Endpoint(reply) as endpoint:
        server = connect(endpoint.port)
        found = server.search_many("x", [{"n": n} for n in range(7)], doing="searching")
        assert [one["n"] for one in found] == list(range(7))
        ids = [f"d{n}" for n in range(11)]
        assert [one["_id"] for one in server.read_documents("x", ids, doing="reading")] == ids
        server.close()
    with Endpoint(scripted(Reply(413, "<html>", "text/html"))) as endpoint:
        server = connect(endpoint.port)
        for send in (
            lambda: server.search_many("x", [{}, {}], doing="searching"),
            lambda: server.read_documents("x", ["a", "b"], doing="reading"),
        ):
            with pytest.raises(ServerFailure, match=r"http\.max_content_length") as failed:
                send()
            assert failed.value.status == 413
        server.close()


@pytest.mark.parametrize("page", ["<html>", "", "{}", "[]", "null", '"ok"', "{"])
def test_page_of_a_proxy_is_an_error_after_a_few_attempts(page: str) -> None:
    for content_type in ("text/html", "application/json", "text/plain"):
        with Endpoint(scripted(Reply(body=page, content_type=content_type))) as endpoint:
            server = connect(endpoint.port)
            with pytest.raises(ServerFailure, match="unusable answer while searching") as failed:
                server.search_many("x", [{}, {}], doing="searching")
            server.close()
        assert failed.value.reason == "answer" and "\n" not in str(failed.value)
        assert len(endpoint.requests) == 4


# ---- messages and logs -----------------------------------------------------------------------


def test_message_has_the_first_and_the_innermost_reason_in_one_line() -> None:
    body = {
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
    with Endpoint(scripted(Reply(400, body))) as endpoint:
        server = connect(endpoint.port)
        with pytest.raises(ServerFailure) as failed:
            server.request("GET", "/_x", doing="trying")
        server.close()
    assert re.fullmatch(r"failed to parse \[day\]: x+", failed.value.reason)
    assert len(failed.value.reason) == 300


def test_retried_failures_are_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    handlers = logging.getLogger("opensearch").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
    with Endpoint(scripted(Reply(503, BUSY), WHOLE)) as endpoint:
        server = connect(endpoint.port)
        server.request("GET", "/_x", doing="trying")
        server.close()
    assert capfd.readouterr() == ("", "")


def test_errors_of_a_real_node(node_url: str) -> None:
    server = connect(int(node_url.rpartition(":")[2]))
    with pytest.raises(IndexMissing, match=r"no such index \[no-such-index\]"):
        server.search("/no-such-index/_search", {}, doing="searching")
    with pytest.raises(ServerFailure, match=r"400.*unknown query") as failed:
        server.search("/_search", {"query": {"none": {}}}, doing="searching")
    assert "\n" not in str(failed.value)
    answers = server.search_many("_all", [{"size": 0}, {"size": 0}], doing="searching")
    assert json.dumps(answers).count('"failed": 0') == 2
    server.close()


def test_token_of_a_connector_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    tracer = logging.getLogger("opensearchpy.trace")
    body = {"name": "xmodal", "credential": {"token": 'a-"}\\-secret'}, "actions": []}
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
    assert b"-secret" in endpoint.requests[-1].body
    assert "-secret" not in caplog.text
    assert caplog.text.count("not logged") >= 6 and "actions" in caplog.text

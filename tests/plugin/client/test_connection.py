"""Connections: answers of other requests, redirects, and proxies in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from support.endpoint import Endpoint, Reply, Request, forward_to

from xmodal.codes import BinaryCodes
from xmodal.errors import ServerFailure
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.connection import proxy_for
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.store import open_opensearch

OPAQUE_ID = "x-opaque-id"
CODE = BinaryCodes.from_hex(["0f"])


def connect(endpoint: Endpoint, options: str = "", retry_timeout: float = 0) -> Server:
    address = parse_address(f"opensearch://127.0.0.1:{endpoint.port}{options}", index_needed=False)
    return Server(address, retry_timeout=retry_timeout)


def echo(request: Request, body: Any = None) -> Reply:
    """The reply of OpenSearch, which repeats the id of the request."""
    reply = Reply() if request.path == "/" else Reply(body=body or {"fine": True})
    return reply._replace(headers=((OPAQUE_ID, request.headers[OPAQUE_ID]),))


def test_each_request_has_an_id_of_its_own() -> None:
    with Endpoint(echo) as endpoint:
        server = connect(endpoint)
        for _ in range(3):
            assert server.request("GET", "/_x", doing="trying") == {"fine": True}
        server.close()
    ids = [request.headers[OPAQUE_ID] for request in endpoint.requests]
    assert len(set(ids)) == 4


@pytest.mark.parametrize("header", ["other", "none"])
def test_answer_to_another_request_is_retried_and_then_an_error(header: str) -> None:
    def reply(request: Request) -> Reply:
        found = echo(request)
        if request.path == "/" or len(endpoint.requests) == 3:
            return found
        return found._replace(headers=((OPAQUE_ID, "xmodal-1"),) if header == "other" else ())

    with Endpoint(reply) as endpoint:
        server = connect(endpoint)
        with pytest.raises(ServerFailure, match="answer to another request") as failed:
            server.request("GET", "/_x", doing="trying")
        assert failed.value.reason == "answer" and "\n" not in str(failed.value)
        server.retry_timeout = 5
        assert server.request("GET", "/_x", doing="trying") == {"fine": True}
        with pytest.raises(ServerFailure, match="answer to another request"):
            server.request("GET", "/_x", doing="trying")
        server.close()
    assert len(endpoint.requests) == 6  # three attempts for the last one


def test_server_that_repeats_no_ids_is_accepted() -> None:
    with Endpoint(lambda request: Reply()) as endpoint:
        server = connect(endpoint)
        assert server.request("GET", "/_x", doing="trying") == Reply().body
        server.close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_an_error_that_names_its_target(status: int) -> None:
    target = "https://user:secret@elsewhere.example:8443/search?token=secret"
    reply = Reply(status, "", "text/html", (("location", target),))
    with Endpoint(lambda request: reply) as endpoint:
        with pytest.raises(
            ServerFailure, match=r"https://elsewhere\.example:8443/search"
        ) as failed:
            connect(endpoint)
    assert len(endpoint.requests) == 1 and "secret" not in str(failed.value)


def test_index_behind_a_reverse_proxy_with_a_path(
    node_url: str, rest: Callable[..., object]
) -> None:
    name, forward = f"t-{uuid4().hex[:8]}", forward_to(node_url)

    def reply(request: Request) -> Reply:
        if not request.path.startswith("/a/search/"):
            return Reply(404, "<html>", "text/html")
        return forward(request._replace(path=request.path.removeprefix("/a/search")))

    with Endpoint(reply) as endpoint:
        place = f"opensearch://127.0.0.1:{endpoint.port}"
        try:
            with open_opensearch(f"{place}/a/search/{name}", bits=8, create=True) as index:
                index.add(["a"], image=CODE)
                assert [hit.id for hit in index.search(CODE, 1, target="image")[0]] == ["a"]
            with pytest.raises(ServerFailure, match=f"no OpenSearch at this path .*{place}/PATH/"):
                open_opensearch(f"{place}/{name}")
        finally:
            rest("DELETE", f"/{name}-*")


def test_forward_proxy_of_the_address_or_the_environment(
    node_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = forward_to(node_url)

    def reply(request: Request) -> Reply:
        assert request.path.startswith(f"{node_url}/")
        return forward(request._replace(path=request.path.removeprefix(node_url)))

    port = node_url.rpartition(":")[2]
    with Endpoint(reply) as endpoint:
        proxy = f"127.0.0.1:{endpoint.port}"
        address = parse_address(
            f"opensearch://127.0.0.1:{port}?proxy=http://{proxy}", index_needed=False
        )
        Server(address).close()
        assert len(endpoint.requests) == 1
        for name in ("no_proxy", "NO_PROXY", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://me:pass%20word@{proxy}")
        from_environment = parse_address(
            f"opensearch://127.0.0.1:{port}?proxy=env", index_needed=False
        )
        Server(from_environment).close()
        assert endpoint.requests[1].headers["proxy-authorization"].startswith("Basic ")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        Server(from_environment).close()
        assert len(endpoint.requests) == 2


def test_proxy_of_the_environment_is_chosen_by_scheme_and_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_for("env", "https", "search.example") == "http://proxy.example:3128"
    assert proxy_for("env", "https", "inside.example") is None
    assert proxy_for("env", "http", "search.example") is None
    assert proxy_for(None, "https", "search.example") is None
    assert proxy_for("http://p:1", "http", "inside.example") == "http://p:1"


def test_changed_bytes_of_an_answer_are_detected(plugin_url: str) -> None:
    from support.damaging_proxy import Answer, DamagingProxy

    with DamagingProxy(plugin_url, 0) as proxy:
        server = Server(
            parse_address(f"opensearch://127.0.0.1:{proxy.port}", index_needed=False),
            retry_timeout=0,
        )
        original = Answer.raw
        refused = 0
        for place in range(12, 40):

            def damaged(answer: Answer, place: int = place) -> bytes:
                body = bytearray(answer.body)
                body[place % len(body)] ^= 4
                return original(answer._replace(body=bytes(body)))

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Answer, "raw", damaged)
                try:
                    server.request("GET", "/_cluster/health", doing="trying")
                except ServerFailure:
                    refused += 1
        assert refused == 28
        server.close()

"""Limits of connections: slow clients, too many of them, and a shutdown that ends in time."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from service.test_limits import gated
from support.service_process import Running, running

from xmodal.encoders.encoder import Encoder
from xmodal.errors import ConfigError
from xmodal.service import connection, middleware
from xmodal.service.tls import TlsFiles

POST = b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: 1000000\r\n\r\n{"


@pytest.fixture(scope="module")
def few(encoder: Encoder, index_path: Path) -> Iterator[Running]:
    """A service with room for few connections."""
    limits = {"max_connections_per_address": 6, "body_timeout": 1.0, "header_timeout": 5.0}
    with running(encoder, index_path, **limits) as service:
        yield service


def opened(service: Running, data: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", service.port), timeout=10)
    made.sendall(data)
    return made


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_waiting_connections_give_way_to_new_ones(few: Running) -> None:
    slow = [
        opened(few, data) for data in (b"GET /hea", POST + LENGTH, b"", b"GET") for _ in range(5)
    ]
    for _ in range(3):
        few.client.get("/health/live").raise_for_status()
        assert few.post("/v1/search", {"text": "a red circle"}).status_code == 200
    for one in slow:
        one.close()
    text = few.get("/metrics").text
    assert 'xmodal_connections_closed_total{reason="limit"}' in text


def test_slow_body_gets_408_and_its_connection_ends(
    few: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "DISCARD_SECONDS", 0.3)
    with opened(few, POST + LENGTH) as made:
        answer = b""
        while received := made.recv(65536):
            answer += received
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"cross-origin-resource-policy: same-origin" in answer.lower()


def test_body_below_the_minimum_rate_is_refused(
    few: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "GRACE_SECONDS", 0.2)
    start = time.monotonic()
    with opened(few, POST + LENGTH) as made:
        made.sendall(b" " * 100)
        assert b"408" in made.recv(65536)
    assert time.monotonic() - start < 0.9  # of body_timeout 1


def test_response_that_is_not_read_is_given_up(
    few: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(connection.LimitedProtocol, "unsent", property(unread))
    with opened(few, b"GET /page/page.js HTTP/1.1\r\nHost: a\r\n\r\n") as made:
        try:
            while made.recv(65536):
                pass
        except ConnectionResetError:
            pass
    monkeypatch.undo()  # the limit would end the connection of the next request, too
    answer = httpx.get(f"{few.url}/metrics", trust_env=False)
    assert 'reason="unread response"' in answer.text


def unread(protocol: connection.LimitedProtocol) -> int:
    """Bytes as if the client read nothing after its response."""
    return 1 if protocol.cycle is not None and protocol.cycle.response_complete else 0


def test_idle_connection_is_closed(few: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE_SECONDS", 0.3)
    with opened(few, b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n") as made:
        answer = b""
        while received := made.recv(65536):  # until the service closes the connection
            answer += received
    assert answer.endswith(b'{"status":"live"}')


def test_small_chunks_are_refused(few: Running) -> None:
    with opened(few, POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 3000) as made:
        answer = made.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400") and b"chunks" in answer


def test_client_above_its_share_gets_429(encoder: Encoder, index_path: Path) -> None:
    gate, index = gated(index_path)
    settings = {"max_requests_per_client": 2, "proxy_headers": True}
    with running(encoder, index, **settings) as service, ThreadPoolExecutor(4) as pool:

        def search(address: str) -> Any:
            headers = {"X-Forwarded-For": f"192.0.2.77, {address}"}
            body = {"text": "a red circle"}
            return service.client.post("/v1/search", json=body, headers=headers)

        gate.clear()
        waiting = [pool.submit(search, "2001:db8::1"), pool.submit(search, "2001:db8::2")]
        until(lambda: "xmodal_requests_running 3.0" in service.get("/metrics").text)
        refused = search("2001:db8::3")  # of the same /64
        other = pool.submit(search, "2001:db8:0:1::1")
        time.sleep(0.1)
        gate.set()
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert [one.result().status_code for one in (*waiting, other)] == [200, 200, 200]
        assert 'xmodal_requests_refused_total{reason="client"} 1.0' in service.get("/metrics").text


def test_shutdown_answers_given_up_requests_with_503(encoder: Encoder, index_path: Path) -> None:
    gate, index = gated(index_path)
    answers: list[Any] = []
    with running(encoder, index, shutdown_timeout=0.2) as service:
        gate.clear()

        def search() -> None:
            answers.append(service.post("/v1/search", {"text": "a red circle"}))

        waiting = threading.Thread(target=search)
        waiting.start()
        until(lambda: "xmodal_requests_running 2.0" in service.get("/metrics").text)
        service.stop()
        waiting.join(10)
        gate.set()
    (answer,) = answers
    assert answer.status_code == 503 and "stopping" in answer.json()["detail"]


def test_tls_with_files_that_change(encoder: Encoder, index_path: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def write() -> ssl.SSLContext:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(key)
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    with pytest.raises(ConfigError, match="--tls-cert"):
        TlsFiles(certificate, key)
    trusted = write()
    tls = TlsFiles(certificate, key)
    with running(encoder, index_path, tls=tls, header_timeout=1.0) as service:
        with opened(service) as silent:  # no handshake
            assert silent.recv(1) == b""
        assert status(service, trusted) == b"HTTP/1.1 200"
        newer = write()
        tls.reload()
        assert status(service, newer) == b"HTTP/1.1 200"
        with pytest.raises(ssl.SSLCertVerificationError):
            status(service, trusted)
        key.write_text("half")
        tls.reload()  # the certificate of before stays in use
        newer.maximum_version = ssl.TLSVersion.TLSv1_2
        assert status(service, newer) == b"HTTP/1.1 200"
    with pytest.raises(ConfigError, match="--tls-key"):
        TlsFiles(certificate, key)


def status(service: Running, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as made,
    ):
        made.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return made.recv(65536)[:12]

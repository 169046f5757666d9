"""``client.http.request``: TLS, redirects, proxies, and limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from xmodal.web.failures import RequestFailed
from xmodal_opensearch.client.http import Response, request

Requests = list[tuple[str, str | None]]
"""Path and authorization header of each request."""
Serve = Callable[..., tuple[str, Requests]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """``serve(location)`` -> URL of a server that redirects to ``location``, and its requests."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:

        def start(location: str | None = None, tls: object = None) -> tuple[str, Requests]:
            requests: Requests = []

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    requests.append((self.path, self.headers.get("authorization")))
                    self.send_response(302 if location else 200)
                    if location:
                        self.send_header("Location", location)
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"ok")

                do_POST = do_GET

                def log_message(self, format: str, *args: object) -> None:
                    """Print nothing."""

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            if tls is not None:
                server.socket = tls.wrap_socket(server.socket, server_side=True)  # type: ignore[attr-defined]
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            name = "https" if tls is not None else "http"
            return f"{name}://127.0.0.1:{server.server_port}", requests

        yield start


def test_request_follows_no_redirect(serve: Serve) -> None:
    target, requests = serve()
    url, _ = serve(f"{target}/target")
    assert request("GET", url, headers={"authorization": "Bearer x"}) == Response(302, b"ok")
    assert not requests


def test_request_refuses_a_body_above_max_bytes(serve: Serve) -> None:
    url, _ = serve()
    assert request("POST", url, body=b"{}", max_bytes=2).body == b"ok"
    with pytest.raises(RequestFailed, match="more than 1 bytes"):
        request("POST", url, body=b"{}", max_bytes=1)


def test_request_uses_no_proxies(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, requests = serve()
    url, direct = serve()
    monkeypatch.setenv("http_proxy", proxy)
    request("GET", f"{url}/a")
    assert direct and not requests


def test_request_verifies_certificates(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    url, requests = serve(tls=context)
    with pytest.raises(RequestFailed, match="certificate verify failed"):
        request("GET", url, timeout=5)
    assert not requests
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert request("GET", url, timeout=5).status == 200

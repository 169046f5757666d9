"""The helper for HTTP requests: TLS, redirects, proxies, and where a token goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from xmodal_opensearch.client.http import RequestFailed, Response, request

Seen = list[tuple[str, str | None]]
Serve = Callable[..., tuple[str, Seen]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """``serve(location)`` -> address of a server that redirects there, and the requests it got."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:

        def start(location: str | None = None, tls: object = None) -> tuple[str, Seen]:
            seen: Seen = []

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    seen.append((self.path, self.headers.get("authorization")))
                    self.send_response(302 if location else 200)
                    if location:
                        self.send_header("Location", location)
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"ok")

                do_POST = do_GET

                def log_message(self, format: str, *args: object) -> None:
                    """Tests are quiet."""

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            if tls is not None:
                server.socket = tls.wrap_socket(server.socket, server_side=True)  # type: ignore[attr-defined]
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            name = "https" if tls is not None else "http"
            return f"{name}://127.0.0.1:{server.server_port}", seen

        yield start


def test_a_redirect_is_followed_only_where_it_is_allowed(serve: Serve) -> None:
    target, _ = serve()
    url, _ = serve(f"{target}/there")
    assert request("GET", url) == Response(302, b"ok")
    assert request("GET", url, max_redirects=1) == Response(200, b"ok")


def test_a_token_is_not_sent_to_another_host(serve: Serve) -> None:
    target, seen = serve()
    url, first = serve(f"{target}/there")
    token = {"authorization": "Bearer secret"}
    request("GET", f"{url}/here", headers=token, max_redirects=3)
    assert first == [("/here", "Bearer secret")]
    assert seen == [("/there", None)]


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/a"])
def test_a_redirect_leads_to_http_only(serve: Serve, location: str) -> None:
    url, _ = serve(location)
    with pytest.raises(RequestFailed, match=location.partition(":")[0]):
        request("GET", url, max_redirects=3)


def test_a_long_answer_is_refused(serve: Serve) -> None:
    url, _ = serve()
    assert request("POST", url, body=b"{}", max_bytes=2).body == b"ok"
    with pytest.raises(RequestFailed, match="more than 1 bytes"):
        request("POST", url, body=b"{}", max_bytes=1)


def test_proxies_of_the_environment_are_used_where_they_are_wanted(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, seen = serve()
    url, direct = serve()
    monkeypatch.setenv("http_proxy", proxy)
    request("GET", f"{url}/a")
    assert direct and not seen
    request("GET", "http://pictures.example/b", use_proxies=True)
    assert seen == [("http://pictures.example/b", None)]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    request("GET", f"{url}/c", use_proxies=True)
    assert direct[-1][0] == "/c"


def test_certificates_are_verified(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    url, seen = serve(tls=context)
    with pytest.raises(RequestFailed, match="certificate verify failed"):
        request("GET", url, timeout=5)
    assert not seen
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert request("GET", url, timeout=5).status == 200

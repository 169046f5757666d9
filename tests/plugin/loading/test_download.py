"""Download: pictures from a real server that redirects, trickles, lies and fails."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from xmodal.errors import DataError
from xmodal.web.allowed_hosts import AllowedHosts
from xmodal_opensearch.loading import download as downloading
from xmodal_opensearch.loading.download import Download

CONTENT = b"\x89PNG" + bytes(range(256)) * 40
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Shop(ThreadingHTTPServer):
    """A server of pictures. ``requests``: path, host and authorization of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None, str | None]] = []
        self.busy = 0
        self.running = self.most = 0

    @property
    def url(self) -> str:
        scheme = "https" if isinstance(self.socket, ssl.SSLSocket) else "http"
        return f"{scheme}://127.0.0.1:{self.server_port}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients end connections."""


class Handler(BaseHTTPRequestHandler):
    server: Shop

    def do_GET(self) -> None:
        headers = self.headers
        self.server.requests.append((self.path, headers["host"], headers["authorization"]))
        path, _, query = self.path.partition("?")
        if path == "/to":
            self._send(302, b"", Location=query)
        elif path == "/round":
            self._send(302, b"", Location=f"/round?{query}1")
        elif path == "/busy" and self.server.busy > 0:
            self.server.busy -= 1
            self._send(503, b"", **{"Retry-After": "0"})
        elif path == "/counted":
            self.server.running += 1
            self.server.most = max(self.server.most, self.server.running)
            time.sleep(0.05)
            self.server.running -= 1
            self._send(200, CONTENT)
        elif path == "/none":
            self._send(404, b"nothing here")
        elif path == "/cut":
            self._send(200, CONTENT, **{"Content-Length": "19999"})
        elif path == "/long":
            self._send(200, CONTENT, **{"Content-Length": "5"})
        elif path == "/huge":
            self._send(200, CONTENT, **{"Content-Length": str(10**12)})
        elif path == "/endless":
            self._trickle(b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 4096, 0)
        elif path == "/chunks":
            start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            self._trickle(start, b"400\r\n" + b"x" * 1024 + b"\r\n", 0)
        elif path == "/slow":
            self._trickle(b"HTTP/1.1 200 OK\r\n\r\n", b"\0", 0.02)
        elif path == "/slow-head":
            self._trickle(b"HTTP/1.1 200 OK\r\nX: ", b"\0", 0.02)
        elif path == "/continue":
            self._trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02)
        elif path == "/heads":
            self._trickle(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0)
        elif path == "/line":
            self._trickle(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 4096, 0)
        elif path == "/silent":
            time.sleep(1)
        elif path == "/nonsense":
            self.wfile.write(b"\x16\x03\x01\0nonsense\r\n\r\n")
        else:
            self._send(200, CONTENT)

    def _trickle(self, start: bytes, part: bytes, pause: float) -> None:
        self.close_connection = True
        self.wfile.write(start)
        for _ in range(2000):
            self.wfile.write(part)
            time.sleep(pause)

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


Serve = Callable[..., Shop]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """``serve(tls=context)`` -> a running server; no proxies are set."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with ExitStack() as stack:

        def start(tls: ssl.SSLContext | None = None) -> Shop:
            server = stack.enter_context(Shop())
            server.block_on_close = False
            server.daemon_threads = True
            if tls is not None:
                server.socket = tls.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server

        yield start


def allowing(*hosts: str, **options: Any) -> Download:
    return Download(AllowedHosts.parse(hosts), **{"timeout": 20.0, "pause": 0.0, **options})


LOCAL = allowing("127.0.0.1")


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Let the resolver give one answer after the other; return the names that were resolved."""
    original, remaining, names = socket.getaddrinfo, list(answers), []

    def find(host: str, *args: Any, **options: Any) -> Any:
        if host[:1].isdigit():
            return original(host, *args, **options)
        names.append(host)
        return original(remaining.pop(0), *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", find)
    return names


@pytest.mark.parametrize(
    "path",
    ["/a.png", "/a.png?size=9", "/to?/a.png", "/to?/to?//127.0.0.1:PORT/b", "/Bär %231?x", "#b"],
)  # fmt: skip
def test_download_returns_the_file(serve: Serve, tmp_path: Path, path: str) -> None:
    shop = serve()
    url = shop.url + path.replace("PORT", str(shop.server_port))
    file = LOCAL(url, tmp_path)
    assert file.read_bytes() == CONTENT and file.parent == tmp_path
    assert LOCAL(url.replace("http", "HTTP"), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "message", "requests"),
    [
        ("/none", "status 404", 1),
        ("/to?file:///etc/hostname", "a redirect is refused", 1),
        ("/to?ftp://127.0.0.1/a.png", "a redirect is refused: .*expected http or https", 1),
        ("/to?http://127.1:80/a.png", "a redirect is refused: .*is a number", 1),
        ("/to?http://169.254.169.254/latest", "169.254.169.254, which is not public", 1),
        ("/to?http://[::ffff:127.0.0.1]/a", "::ffff:.*, which is not public", 1),
        ("/round", "more than 5 redirects", 6),
        ("/huge", "more than 20,000 bytes", 1),
        ("/endless", "more than 20,000 bytes", 1),
        ("/chunks", "more than 20,000 bytes", 1),
        ("/cut", "9,755 bytes are missing", 3),
        ("/slow", "more than 0.2 seconds", 3),
        ("/slow-head", "more than 0.2 seconds", 3),
        ("/continue", "more than 0.2 seconds", 3),
        ("/silent", "more than 0.2 seconds", 3),
        ("/heads", "headers", 3),
        ("/line", "line", 3),
        ("/nonsense", "nonsense", 3),
        ("/busy", "status 503", 3),
    ],
)
def test_download_refuses(
    serve: Serve, tmp_path: Path, path: str, message: str, requests: int
) -> None:
    shop = serve()
    shop.busy = 99
    mark = "&" if "?" in path else "?"
    download = allowing(
        "127.0.0.1", max_bytes=20_000, timeout=0.2 if message.endswith("seconds") else 20.0
    )
    with pytest.raises(DataError, match=message) as raised:
        download(f"{shop.url}{path}{mark}token=secret", tmp_path)
    text = str(raised.value)
    assert text.startswith(f"{shop.url}{path.partition('?')[0]}: ")
    assert "secret" not in text and "\n" not in text
    assert len(shop.requests) == requests
    assert list(tmp_path.iterdir()) == []


def test_body_beyond_its_content_length_is_not_read(serve: Serve, tmp_path: Path) -> None:
    assert LOCAL(f"{serve().url}/long", tmp_path).read_bytes() == CONTENT[:5]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/a.png", "Connection refused"),
        ("http://nowhere.invalid/a.png", "the host is not found"),
        ("http://[::1/a.png", "not valid"),
        ("http://", "no valid host"),
        ("http://user:secret@127.0.0.1:port/a.png", "not valid"),
        ("http://127.0.0.1:1/a\nb.png", "Connection refused"),
        ("http://user:secret@10.1.2.3/a.png", "not public"),
        ("http://localhost/a.png", "not public"),
        ("https://2130706433/a.png", "is a number"),
    ],
)
def test_invalid_and_unreachable_addresses(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        LOCAL(url, tmp_path) if "localhost" not in url else allowing()(url, tmp_path)
    assert "\n" not in str(raised.value) and "secret" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_requested_of_hosts_that_are_not_allowed(serve: Serve, tmp_path: Path) -> None:
    shop, other = serve(), serve()
    port = shop.server_port
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::ffff:7f00:1]", "127.0.0.2"):
        with pytest.raises(DataError, match="not public"):
            allowing("10.0.0.0/8", "photos.example")(f"http://{host}:{port}/a", tmp_path)
    assert shop.requests == []
    with pytest.raises(DataError, match=r"127\.0\.0\.1, which is not public"):
        allowing("localhost")(f"http://localhost:{port}/to?{other.url}/a", tmp_path)
    assert len(shop.requests) == 1 and other.requests == []


def test_connection_goes_to_the_address_that_was_checked(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = serve()
    names = resolve_to(monkeypatch, "127.0.0.1", "127.0.0.1", "10.0.0.1", "127.0.0.1")
    url = f"http://rebinding.example:{shop.server_port}"
    allowed = allowing("127.0.0.1")
    assert allowed(f"{url}/a", tmp_path).read_bytes() == CONTENT
    assert names == ["rebinding.example"]
    assert shop.requests[0][1] == f"rebinding.example:{shop.server_port}"
    with pytest.raises(DataError, match=r"10\.0\.0\.1, which is not public"):
        allowed(f"{url}/to?/b", tmp_path)  # checked again for the redirect
    assert shop.paths == ["/a", "/to?/b"]


def test_user_and_password_are_sent_to_their_own_host(serve: Serve, tmp_path: Path) -> None:
    shop, other = serve(), serve()
    url = shop.url.replace("//", "//jo:p%C3%BC@")
    LOCAL(f"{url}/to?/a", tmp_path)
    LOCAL(f"{url}/to?{other.url}/to?{shop.url}/b", tmp_path)
    LOCAL(f"{shop.url}/to?{other.url.replace('//', '//eve:x@')}/c", tmp_path)
    basic = "Basic am86cMO8"
    assert [(path, user) for path, _, user in shop.requests] == [
        ("/to?/a", basic),
        ("/a", basic),
        (f"/to?{other.url}/to?{shop.url}/b", basic),
        ("/b", basic),
        (f"/to?{other.url.replace('//', '//eve:x@')}/c", None),
    ]
    assert [user for _, _, user in other.requests] == [None, None]


def test_busy_server_is_asked_again(serve: Serve, tmp_path: Path) -> None:
    shop = serve()
    shop.busy = 2
    assert LOCAL(f"{shop.url}/busy", tmp_path).read_bytes() == CONTENT
    assert len(shop.requests) == 3


def test_requests_to_a_failing_host_are_not_repeated(serve: Serve, tmp_path: Path) -> None:
    shop = serve()
    download = allowing("127.0.0.1")
    shop.busy = 99
    for _ in range(5):
        with pytest.raises(DataError, match="503"):
            download(f"{shop.url}/busy", tmp_path)
    assert len(shop.requests) == 3 + 3 + 3 + 1 + 1
    shop.busy = 0
    download(f"{shop.url}/a", tmp_path)
    shop.busy = 1
    download(f"{shop.url}/busy", tmp_path)


def test_requests_to_one_host_at_the_same_time(serve: Serve, tmp_path: Path) -> None:
    shop = serve()
    with ThreadPoolExecutor(12) as pool:
        urls = [f"{shop.url}/counted?{n}" for n in range(24)]
        files = list(pool.map(lambda url: LOCAL(url, tmp_path), urls))
    assert len(set(files)) == 24 and shop.most == downloading.REQUESTS_PER_HOST


def test_certificates_are_verified_for_the_name(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("photos.example").configure_cert(context)
    shop = serve(tls=context)
    resolve_to(monkeypatch, *12 * ["127.0.0.1"])
    url = f"https://photos.example:{shop.server_port}/a"
    with pytest.raises(DataError, match="certificate verify failed"):
        LOCAL(url, tmp_path)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert LOCAL(url, tmp_path).read_bytes() == CONTENT
    with pytest.raises(DataError, match="certificate verify failed"):
        LOCAL(url.replace("photos", "other"), tmp_path)
    assert shop.paths == ["/a"]


def test_proxies_get_allowed_hosts_alone(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, shop = serve(), serve()
    monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:secret@"))
    monkeypatch.setenv("https_proxy", proxy.url)
    download = allowing("photos.example")
    assert download("http://photos.example/a?b", tmp_path).read_bytes() == CONTENT
    assert proxy.requests == [("http://photos.example/a?b", "photos.example", None)]
    for scheme in ("http", "https"):
        for host in ("other.example", "127.0.0.1", "169.254.169.254"):
            with pytest.raises(DataError, match=r"a proxy resolves|not public"):
                download(f"{scheme}://{host}/a", tmp_path)
    assert len(proxy.requests) == 1
    with pytest.raises(DataError, match=re.compile("tunnel", re.IGNORECASE)):
        download("https://photos.example/a", tmp_path)  # this proxy knows no CONNECT
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert LOCAL(f"{shop.url}/a", tmp_path).read_bytes() == CONTENT
    assert shop.paths == ["/a"] and len(proxy.requests) == 1
    monkeypatch.setenv("http_proxy", "socks5://me:secret@localhost")
    with pytest.raises(DataError, match="http_proxy is not valid") as raised:
        download("http://photos.example/a", tmp_path)
    assert "secret" not in str(raised.value)

"""Download: pictures by http, limits, redirects, and errors of one line without secrets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from xmodal.errors import DataError
from xmodal_opensearch.loading.download import Download

CONTENT = b"\x89PNG" + bytes(range(256)) * 40


class Shop(BaseHTTPRequestHandler):
    """Serves pictures, redirects, and damaged, endless and slow answers."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/a.png", "/B%C3%A4r%20%231.png"):
            self._send(200, CONTENT)
        elif path == "/moved":
            self._send(302, b"", Location="/a.png")
        elif path == "/to-a-file":
            self._send(302, b"", Location="file:///etc/hostname")
        elif path == "/to-ftp":
            self._send(301, b"", Location="ftp://127.0.0.1/a.png")
        elif path == "/round":
            self._send(302, b"", Location="/round")
        elif path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "9999")
            self.end_headers()
            self.wfile.write(CONTENT[:99])
        elif path == "/endless":
            self.send_response(200)
            self.end_headers()
            self._trickle(b"\0" * 4096, 0)
        elif path == "/slow":
            self.send_response(200)
            self.end_headers()
            self._trickle(b"\0", 0.05)
        else:
            self._send(404, b"nothing here")

    def _trickle(self, part: bytes, pause: float) -> None:
        try:
            for _ in range(2000):
                self.wfile.write(part)
                time.sleep(pause)
        except OSError:  # the client closed the connection
            pass

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of such a server on localhost."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/a.png", "/a.png?size=9", "/moved", "/Bär #1.png?x", "/a.png#b"])
def test_download_returns_the_file(shop: str, tmp_path: Path, path: str) -> None:
    path = path.replace("#1", "%231")
    file = Download()(shop + path, tmp_path)
    assert file.read_bytes() == CONTENT
    assert file.parent == tmp_path
    assert Download()(shop.upper() + path, tmp_path).read_bytes() == CONTENT  # HTTP://


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none.png", "/none.png answers 404"),
        ("/to-a-file", "/to-a-file: it leads to file, expected http(s)"),
        ("/to-ftp", "/to-ftp: it leads to ftp, expected http(s)"),
        ("/round", "/round answers 302"),
        ("/cut", "/cut: the answer was cut off, 9,900 bytes are missing"),
        ("/endless", "/endless: the answer has more than 20,000 bytes"),
        ("/slow", "/slow: the answer took more than 0.5 seconds"),
    ],
)
def test_download_rejects(shop: str, tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(DataError) as raised:
        Download(max_bytes=20_000, timeout=0.5)(f"{shop}{path}?token=secret", tmp_path)
    text = str(raised.value)
    assert message in text and "secret" not in text and "\n" not in text


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/a.png", "Connection refused"),
        ("http://[::1/a.png", "invalid address"),
        ("http://", "no host"),
        ("http://user:secret@127.0.0.1:port/a.png", "Port could not be cast"),
        ("http://127.0.0.1:1/a\nb.png", "Connection refused"),
    ],
)
def test_invalid_and_unreachable_addresses_raise(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        Download(timeout=2)(url, tmp_path)
    assert "\n" not in str(raised.value) and "secret" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []

"""A small HTTP server on 127.0.0.1 with replies from a function; it records the requests."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from support.local_server import LocalServer

HELLO = {"version": {"distribution": "opensearch", "number": "3.6.0"}}


class Request(NamedTuple):
    """One received request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """One answer; ``body`` is text, bytes, or a value to send as JSON."""

    status: int = 200
    body: Any = HELLO
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Endpoint(LocalServer):
    """Sends ``reply(request)`` for every request within the ``with`` block."""

    def __init__(
        self, reply: Callable[[Request], Reply], context: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[Request] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, body)
                endpoint.requests.append(request)
                status, content, content_type, more = reply(request)
                if not isinstance(content, str | bytes):
                    content = json.dumps(content)
                data = content.encode() if isinstance(content, str) else content
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(data)))
                for name, value in more:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *arguments: Any) -> None:
                """Print nothing; ``requests`` has the record."""

        super().__init__(Handler, context)


def forward_to(url: str) -> Callable[[Request], Reply]:
    """Return a reply function that forwards each request to a real server."""
    target = urlsplit(url)

    def reply(request: Request) -> Reply:
        connection = HTTPConnection(str(target.hostname), target.port, timeout=30)
        headers = {"content-type": request.headers.get("content-type", "application/json")}
        connection.request(request.method, request.path, request.body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return Reply(answer.status, text, answer.headers["content-type"])

    return reply

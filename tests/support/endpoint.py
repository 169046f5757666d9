"""A small HTTP server on 127.0.0.1 that answers as a test says, and remembers what was asked."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

HELLO = {"version": {"distribution": "opensearch", "number": "3.6.0"}}


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """One answer; ``body`` is text, or anything that JSON can say."""

    status: int = 200
    body: Any = HELLO
    kind: str = "application/json"


class Endpoint:
    """Answers ``reply(asked)`` to every request while the ``with`` block lasts."""

    def __init__(
        self, reply: Callable[[Asked], Reply], context: ssl.SSLContext | None = None
    ) -> None:
        self.asked: list[Asked] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                endpoint.asked.append(asked)
                status, told, kind = reply(asked)
                data = told.encode() if isinstance(told, str) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *arguments: Any) -> None:
                """Nothing: a test that fails shows what was asked."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: Any) -> None:
                """A client that goes away, or is refused by TLS, is what some tests want."""

            def finish_request(self, request: Any, client: Any) -> None:
                # The handshake belongs to this connection's thread, not to the one that accepts.
                if context is not None:
                    request = context.wrap_socket(request, server_side=True)
                with request:
                    super().finish_request(request, client)

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def passed_on(node_url: str) -> Callable[[Asked], Reply]:
    """Answers of the real node, word for word."""
    where = urlsplit(node_url)

    def reply(asked: Asked) -> Reply:
        connection = HTTPConnection(str(where.hostname), where.port, timeout=30)
        headers = {"content-type": asked.headers.get("content-type", "application/json")}
        connection.request(asked.method, asked.path, asked.body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return Reply(answer.status, text, answer.headers["content-type"])

    return reply

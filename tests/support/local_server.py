"""An HTTP server on 127.0.0.1 in a thread of its own."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class LocalServer:
    """Serves requests by a handler class within the ``with`` block; ``context``: with TLS."""

    def __init__(
        self, handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None
    ) -> None:
        class QuietServer(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: Any) -> None:
                """Print nothing; some tests cause disconnections and TLS failures."""

            def finish_request(self, request: Any, client: Any) -> None:
                # The handshake runs in the thread of the connection, not in the accepting thread.
                if context is not None:
                    request = context.wrap_socket(request, server_side=True)
                with request:
                    super().finish_request(request, client)

        self._server = QuietServer(("127.0.0.1", 0), handler)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

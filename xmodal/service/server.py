"""The server process: listening socket, timeouts for slow clients, graceful shutdown."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from xmodal.errors import ConfigError
from xmodal.service.errors import problem_response
from xmodal.service.settings import Settings

BACKLOG = 256
"""Connections waiting to be accepted: bulk loads through OpenSearch open many at once."""
MAX_HEADER_BYTES = 16 * 1024
KEEP_ALIVE_SECONDS = 75
"""Seconds until an idle connection is closed: longer than OpenSearch's connectors keep one."""
SHUTDOWN_SECONDS = 10
LINGER_SECONDS = 1.0
"""Seconds between an error response and the end of its connection. A connection that is closed with
unread bytes is reset, and the client may not receive the response."""

OTHER_PORT = (errno.EADDRINUSE, errno.EACCES)
"""Errors for a port that is taken, or that needs other rights."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 selects a free port. Raises ConfigError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sets TCP_NODELAY only for a socket with an explicit protocol. Without it, Nagle's
        # algorithm delays the body of a response by 40 ms.
        listening = socket.socket(family, kind, socket.IPPROTO_TCP)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        advice = "; choose another port with --port" if error.errno in OTHER_PORT else ""
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}{advice}") from None
    return listening


def serve(
    app: ASGIApp,
    listening: socket.socket,
    settings: Settings,
    on_ready: Callable[[], None],
    on_start: Callable[[uvicorn.Server], None] = lambda server: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests in progress.

    ``on_start`` is called with the server before it starts, ``on_ready`` when it accepts requests.
    In a thread, where signals do not arrive, ``server.should_exit = True`` ends it.
    """
    config = uvicorn.Config(
        app,
        http=_protocol_with_timeout(settings.header_timeout),
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _Server(config, on_ready)
    on_start(server)
    server.run([listening])


class _Server(uvicorn.Server):
    """Calls ``on_ready`` after startup; exits normally after a signal."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # uvicorn would raise them again after the shutdown


def _protocol_with_timeout(seconds: float) -> type[H11Protocol]:
    """An HTTP protocol that closes a connection whose request head is not received in time."""

    class ProtocolWithTimeout(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _closing = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start_timer()

        def data_received(self, data: bytes) -> None:
            if self._closing:
                return
            super().data_received(data)
            if self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE:
                if self._timer is None:
                    self._start_timer()
            else:
                self._stop_timer()

        def connection_lost(self, error: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(error)

        def send_400_response(self, msg: str) -> None:
            self._close_with(400, msg)

        def _start_timer(self) -> None:
            self._timer = self.loop.call_later(seconds, self._time_out)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _time_out(self) -> None:
            self._timer = None
            self._close_with(408, f"the head of the request was not received within {seconds:g} s")

        def _close_with(self, status: int, detail: str) -> None:
            if self._closing or self.transport.is_closing():
                return
            self._closing = True
            response = problem_response(status, detail, {"connection": "close"})
            head = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
            phrase = b"Request Timeout" if status == 408 else b"Bad Request"
            status_line = b"HTTP/1.1 %d %s\r\n" % (status, phrase)
            self.transport.write(status_line + head + b"\r\n" + bytes(response.body))
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)

    return ProtocolWithTimeout

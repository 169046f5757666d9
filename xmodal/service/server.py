"""The process of the service: it listens, hangs up on slow senders, and stops gracefully."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from xmodal.errors import ConfigError
from xmodal.service.errors import problem
from xmodal.service.settings import Settings

BACKLOG = 256
"""Connections that may wait to be accepted: bulk loads through OpenSearch open many at once."""
HEAD_BYTES = 16 * 1024
STOPPING_SECONDS = 10
LINGERING_SECONDS = 1.0


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ConfigError."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio switches Nagle's algorithm off only where the protocol is named; with it on, head
        # and body of an answer are 40 ms apart.
        listening = socket.socket(family, kind, socket.IPPROTO_TCP)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listening


def serve(
    app: ASGIApp,
    listening: socket.socket,
    settings: Settings,
    ready: Callable[[], None],
    started: Callable[[uvicorn.Server], None] = lambda server: None,
) -> None:
    """Answer until SIGINT or SIGTERM; requests that run then are finished first.

    ``ready`` is called when connections are answered, ``started`` with the server before: whoever
    runs it in a thread, where no signal comes, ends it by ``server.should_exit = True``.
    """
    config = uvicorn.Config(
        app,
        http=_impatient(settings.head_seconds),
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=75,  # longer than OpenSearch's connectors keep one
        timeout_graceful_shutdown=STOPPING_SECONDS,
    )
    server = _Server(config, ready)
    started(server)
    server.run([listening])


class _Server(uvicorn.Server):
    """Says when it is ready; a signal to stop is no failure."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # else they are raised again when everything is closed


def _impatient(seconds: float) -> type[H11Protocol]:
    """A protocol that hangs up, with a reason, if a request's head does not come in time."""

    class Impatient(H11Protocol):
        _waits: asyncio.TimerHandle | None = None
        _left = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            if self._left:
                return
            super().data_received(data)
            if self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE:
                if self._waits is None:
                    self._wait()
            else:
                self._stop_waiting()

        def connection_lost(self, error: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(error)

        def send_400_response(self, msg: str) -> None:
            self._hang_up(400, msg)

        def _wait(self) -> None:
            self._waits = self.loop.call_later(seconds, self._give_up)

        def _stop_waiting(self) -> None:
            if self._waits is not None:
                self._waits.cancel()
                self._waits = None

        def _give_up(self) -> None:
            self._waits = None
            self._hang_up(408, f"the head of the request did not come within {seconds:g} s")

        def _hang_up(self, status: int, detail: str) -> None:
            if self._left or self.transport.is_closing():
                return
            self._left = True
            told = problem(status, detail, {"connection": "close"})
            head = b"".join(name + b": " + value + b"\r\n" for name, value in told.raw_headers)
            phrase = b"Request Timeout" if status == 408 else b"Bad Request"
            first = b"HTTP/1.1 %d %s\r\n" % (status, phrase)
            self.transport.write(first + head + b"\r\n" + bytes(told.body))
            self.transport.write_eof()
            # Closed with bytes unread, a connection is reset, and the reason is lost on its way.
            self.loop.call_later(LINGERING_SECONDS, self.transport.close)

    return Impatient

"""The server process: listening socket, limits of connections, graceful shutdown."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import nsmallest
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from xmodal.errors import ConfigError
from xmodal.operating_system import max_open_files
from xmodal.service.connection import KEEP_ALIVE_SECONDS, LINGER_SECONDS, LimitedProtocol, Parsing
from xmodal.service.metrics import Metrics
from xmodal.service.settings import Settings
from xmodal.service.tls import TlsFiles

BACKLOG = 2048
"""Connections waiting to be accepted: bulk loads through OpenSearch open many at once."""
MAX_SHUTDOWN_SECONDS = 9.5
"""Seconds from a signal until the process ends, even if a thread cannot be interrupted."""
ACCEPTED_AT_ONCE = 32
CLOSED_AT_ONCE = 32
"""Of the connections of an address, one in CLOSED_AT_ONCE is closed if they are too many."""
RESERVED_FILES = 128
"""File descriptors that are kept for files and for connections to OpenSearch."""
SWITCH_SECONDS = 0.0005
"""Seconds for which a thread waits for the interpreter lock while another one computes. The event
loop waits many times per request: with Python's 5 ms, one busy thread would delay it by 100 ms."""
TICK_SECONDS = 0.1
TICKS_PER_CHECK, TICKS_PER_RELOAD = 2, 50
"""Checks of connections, and of TLS files, in ticks of the server."""

OTHER_PORT = (errno.EADDRINUSE, errno.EACCES)
"""Errors for a port that is taken, or that needs other rights."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 selects a free port. Raises ConfigError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sets TCP_NODELAY only for a socket with an explicit protocol. Without it, Nagle's
        # algorithm delays the body of a response by 40 ms.
        listening = _ListeningSocket(family, kind, socket.IPPROTO_TCP)
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
    metrics: Metrics,
    on_ready: Callable[[], None],
    *,
    tls: TlsFiles | None = None,
    on_start: Callable[[uvicorn.Server], None] = lambda server: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests in progress.

    ``on_start`` is called with the server before it starts, ``on_ready`` when it accepts requests.
    In a thread, where signals do not arrive, ``server.should_exit = True`` ends it.
    """
    connections = Connections(settings, metrics)
    config = uvicorn.Config(
        app,
        http=connections.protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="error",
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.shutdown_timeout,  # type: ignore[arg-type]
    )
    server = _Server(config, connections, tls, on_ready)
    on_start(server)
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        server.run([listening])
    finally:
        sys.setswitchinterval(before)


class Connections:
    """The open connections of a server. If they are too many, waiting ones are closed."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self._metrics = settings, metrics
        self.parsing = Parsing()
        self._open: dict[str, set[LimitedProtocol]] = {}
        self._limit = min(settings.max_connections, _max_files())
        self._tick_end: float | None = None
        self.protocol: type[LimitedProtocol] = type(
            "ServiceProtocol", (LimitedProtocol,), {"owner": self}
        )

    def add(self, connection: LimitedProtocol) -> None:
        """Register a connection; close the one that has waited longest if there are too many.

        If all others are used by requests in progress, the new one is refused.
        """
        same_address = self._open.setdefault(connection.address, set())
        same_address.add(connection)
        limit = self.settings.max_connections_per_address
        if not self.settings.proxy_headers and len(same_address) > limit:
            self._replace(connection, same_address, 429, f"{limit} connections of this address")
        elif self._count() > self._limit:
            most = max(self._open.values(), key=len)
            self._replace(connection, most, 503, f"{self._limit} connections")

    def remove(self, connection: LimitedProtocol) -> None:
        """Forget a closed connection."""
        same_address = self._open[connection.address]
        same_address.discard(connection)
        if not same_address:
            del self._open[connection.address]

    def count_closed(self, reason: str) -> None:
        """Count a connection that was closed because of a limit."""
        self._metrics.closed.labels(reason).inc()

    def check(self, now: float) -> None:
        """Close the connections of clients that are too slow, and of too many unread bytes."""
        connections = [one for some in self._open.values() for one in some]
        for connection in connections:
            connection.check(now)
        if sum(one.unsent for one in connections) > self.settings.max_bodies_bytes:
            max(connections, key=lambda one: one.unsent).abort("unread response")
        self._metrics.connections.set(len(connections))

    def observe_lag(self, now: float) -> None:
        """Record how much later than planned a tick of the server is."""
        if self._tick_end is not None:
            self._metrics.lag.observe(max(0.0, now - self._tick_end - TICK_SECONDS))
        self._tick_end = asyncio.get_running_loop().time()

    def _count(self) -> int:
        return sum(map(len, self._open.values()))

    def _replace(
        self, connection: LimitedProtocol, others: set[LimitedProtocol], status: int, what: str
    ) -> None:
        waiting = [one for one in others if one.is_waiting and one is not connection]
        if waiting:
            count = 1 + len(others) // CLOSED_AT_ONCE  # fewer scans in a flood of connections
            for one in nsmallest(count, waiting, key=lambda one: one.since):
                one.abort("limit")
        else:
            self.count_closed("limit")
            connection.respond_and_close(status, f"{what} are open: retry", linger=False)


class _Server(uvicorn.Server):
    """Checks connections, calls ``on_ready`` after startup, ends in time after a signal."""

    def __init__(
        self,
        config: uvicorn.Config,
        connections: Connections,
        tls: TlsFiles | None,
        on_ready: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._connections, self._tls, self._on_ready = connections, tls, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, with a limit of the time of TLS handshakes."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(uvicorn.config.STARTUP_FAILURE)

        def protocol() -> asyncio.Protocol:
            return self._connections.protocol(
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )

        tls, loop = self._tls, asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                protocol,
                sock=one,
                backlog=BACKLOG,
                ssl=None if tls is None else tls.context,
                ssl_handshake_timeout=None
                if tls is None
                else self._connections.settings.header_timeout,
                ssl_shutdown_timeout=None if tls is None else LINGER_SECONDS,
            )
            for one in sockets or []
        ]
        self.started = True
        self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times per second."""
        now = asyncio.get_running_loop().time()
        self._connections.observe_lag(now)
        if counter % TICKS_PER_CHECK == 0:
            self._connections.check(now)
        if self._tls is not None and counter % TICKS_PER_RELOAD == 0:
            self._tls.reload()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: the process ends within MAX_SHUTDOWN_SECONDS."""
        if not self.should_exit:
            watchdog = threading.Timer(MAX_SHUTDOWN_SECONDS, os._exit, [0])
            watchdog.daemon = True
            watchdog.start()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # uvicorn would raise them again after the shutdown


class _ListeningSocket(socket.socket):
    """A socket that accepts no connection if few file descriptors are left.

    The system assigns the lowest free descriptor, so its number is a bound of the open ones. TLS
    connections have one before their handshake, when no protocol counts them.
    """

    max_file: int | None = None
    accepted = 0

    def accept(self) -> tuple[socket.socket, Any]:
        # asyncio accepts until an error, up to BACKLOG connections in one iteration of the loop.
        self.accepted = (self.accepted + 1) % ACCEPTED_AT_ONCE
        if not self.accepted:
            raise BlockingIOError
        if self.max_file is None:
            self.max_file = _max_files() + RESERVED_FILES // 2
        connection, address = super().accept()
        if connection.fileno() >= self.max_file:
            connection.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "too many open files")
        return connection, address


def _max_files() -> int:
    """Number of connections for which file descriptors suffice."""
    files = max_open_files()
    return max(files - RESERVED_FILES, files // 2)

"""One connection: uvicorn's HTTP protocol with limits of time, rate and processing.

``LimitedProtocol.check`` is called several times per second and closes a connection whose client
does not send a request, or does not read a response, in time.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import Any, Literal, Protocol

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from xmodal.service.admission import network
from xmodal.service.errors import problem_response
from xmodal.service.settings import GRACE_SECONDS, Settings

MAX_HEAD_BYTES = 16 * 1024
KEEP_ALIVE_SECONDS = 75
"""Seconds until an idle connection is closed: longer than OpenSearch's connectors keep one."""
LINGER_SECONDS = 1.0
"""Seconds between an error response and the end of its connection. A connection that is closed with
unread bytes is reset, and the client may not receive the response."""
DISCARD_SECONDS = 5.0
"""Seconds in which the rest of a body is received and discarded after its response."""
SLICE_BYTES = 4096
"""Bytes that are parsed at once: less than 20 ms, if they are chunks of one byte each."""
BODY_SLICE_BYTES = 64 * 1024
"""Bytes of a body of known length that are parsed at once: they are only copied."""
PARSING_SECONDS = 0.002
"""Seconds of parsing, of all connections together, in one iteration of the event loop."""
FREE_PARTS, MIN_PART_BYTES = 1000, 64
"""Chunks of a body that may be of any size; the mean size of further ones. Each chunk costs."""

Phase = Literal["head", "idle", "body", "discard", "response", "closing"]


class Parsing:
    """Parses received bytes of connections in turns, a few milliseconds per iteration of the loop.

    Without it, one client that sends many small chunks would delay the answers to all others.
    """

    def __init__(self) -> None:
        self._waiting: deque[LimitedProtocol] = deque()
        self._scheduled = False

    def add(self, connection: LimitedProtocol) -> None:
        """Parse what a connection has received, soon."""
        self._waiting.append(connection)
        if not self._scheduled:
            self._scheduled = True
            connection.loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        end = time.perf_counter() + PARSING_SECONDS
        while self._waiting and time.perf_counter() < end:
            connection = self._waiting.popleft()
            if connection.parse_slice():
                self._waiting.append(connection)
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._waiting[0].loop.call_soon(self._run)


class Owner(Protocol):
    """What a connection needs of its server."""

    settings: Settings
    parsing: Parsing

    def add(self, connection: LimitedProtocol) -> None:
        """Register a new connection."""

    def remove(self, connection: LimitedProtocol) -> None:
        """Forget a closed connection."""

    def count_closed(self, reason: str) -> None:
        """Count a connection that was closed because of a limit."""


class _Flow(FlowControl):
    """Flow control of uvicorn, which reads no more while received bytes wait to be parsed."""

    unparsed = False

    def resume_reading(self) -> None:
        if self.unparsed:
            self.read_paused = False
        else:
            super().resume_reading()


class _HttpParser(h11.Connection):
    """h11 with a limit of small chunks.

    ``unread``: bytes of the current body that are not received; 0 if its length is unknown.
    """

    parts = received = unread = 0
    error: h11.RemoteProtocolError | None = None

    def next_event(self) -> Any:
        try:
            return self._checked(super().next_event())
        except h11.RemoteProtocolError as error:
            self.error = error
            raise

    def _checked(self, event: Any) -> Any:
        if isinstance(event, h11.Data):
            self.parts += 1
            self.received += len(event.data)
            self.unread = max(0, self.unread - len(event.data))
            if self.parts > FREE_PARTS + self.received // MIN_PART_BYTES:
                raise h11.RemoteProtocolError("the chunks of the body are too small")
        elif isinstance(event, h11.Request):
            self.parts = self.received = 0
            headers = dict(event.headers)
            is_chunked = b"transfer-encoding" in headers
            self.unread = 0 if is_chunked else int(headers.get(b"content-length", b"0"))
        return event


class LimitedProtocol(H11Protocol):
    """A connection that is closed when its client is too slow. A subclass sets ``owner``."""

    owner: Owner
    conn: _HttpParser
    flow: _Flow

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _HttpParser(h11.SERVER, MAX_HEAD_BYTES)
        self.address = "unknown"
        self.since = self.loop.time()
        self._phase: Phase = "head"
        self._unparsed = memoryview(b"")
        self._unsent_since: float | None = None
        self._most_unsent = 0

    # ---- events of the transport --------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self.address = network(self.client[0]) if self.client else "unknown"
        self.owner.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._unparsed = memoryview(b"")
        self.owner.remove(self)
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        if len(data) <= SLICE_BYTES and not self._unparsed:
            self._parse(data)
        elif self._unparsed:  # of a transport that was paused too late
            self._unparsed = memoryview(bytes(self._unparsed) + data)
        else:
            self._unparsed = memoryview(data)
            self.flow.unparsed = True
            self.transport.pause_reading()
            self.owner.parsing.add(self)

    def parse_slice(self) -> bool:
        """Parse a slice of the received bytes. Returns whether more are left."""
        size = max(SLICE_BYTES, min(self.conn.unread, BODY_SLICE_BYTES))
        data, self._unparsed = self._unparsed[:size], self._unparsed[size:]
        if data and not self.is_closing:
            self._parse(bytes(data))
        if self._unparsed and not self.is_closing:
            return True
        self.flow.unparsed = False
        if not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()
        return False

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        self._update_phase()

    def send_400_response(self, msg: str) -> None:
        error = self.conn.error
        if error is not None and error.error_status_hint == 431:
            self.respond_and_close(431, f"the head has more than {MAX_HEAD_BYTES:,} bytes")
        else:
            self.respond_and_close(400, f"the request is not valid HTTP: {str(error)[:200]}")

    def shutdown(self) -> None:
        if self.is_closing:
            self.transport.close()
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update_phase()

    def timeout_keep_alive_handler(self) -> None:
        """Idle connections are closed by :meth:`check`."""

    # ---- limits -------------------------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        """Whether no further request of this connection is processed."""
        return self._phase == "closing" or self.transport.is_closing()

    @property
    def is_waiting(self) -> bool:
        """Whether the connection waits for its client, and not for the service."""
        return self._phase != "response"

    @property
    def unsent(self) -> int:
        """Bytes of responses that the client has not read."""
        return int(self.transport.get_write_buffer_size())

    def check(self, now: float) -> None:
        """Close the connection if its client is too slow."""
        if self._check_unsent(now) or self.transport.is_closing():
            return
        self._update_phase()
        seconds, settings = now - self.since, self.owner.settings
        if self._phase == "head" and seconds > settings.header_timeout:
            limit = f"{settings.header_timeout:g} s"
            self.owner.count_closed("head")
            self.respond_and_close(408, f"the head of the request was not received within {limit}")
        elif self._phase == "idle" and seconds > KEEP_ALIVE_SECONDS:
            self.close("idle")
        elif self._phase == "discard" and seconds > DISCARD_SECONDS:
            self.close("body")
        elif self._phase == "closing" and seconds > LINGER_SECONDS:
            self.transport.close()

    def close(self, reason: str) -> None:
        """Close the connection without a response."""
        self.owner.count_closed(reason)
        self._phase = "closing"
        self.transport.close()

    def respond_and_close(self, status: int, detail: str, linger: bool = True) -> None:
        """Send an error response instead of the application's, and close the connection.

        With ``linger``, bytes of the client are received and discarded for LINGER_SECONDS.
        """
        if self.is_closing:
            return
        self._set_phase("closing")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:  # a second response would be read as part of the first
                self.transport.close()
                return
        headers = {"Connection": "close"} | ({"Retry-After": "1"} if status in (429, 503) else {})
        response = problem_response(status, detail, headers)
        head = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
        status_line = b"HTTP/1.1 %d %s\r\n" % (status, STATUS_PHRASES[status])
        self.transport.write(status_line + head + b"\r\n" + bytes(response.body))
        if not linger:
            self.transport.close()
        elif self.transport.can_write_eof():
            with suppress(OSError):  # the client has reset the connection
                self.transport.write_eof()

    def _check_unsent(self, now: float) -> bool:
        """Close the connection if its client reads too slowly. Returns whether it was closed."""
        unsent = self.unsent
        if not unsent:
            self._unsent_since, self._most_unsent = None, 0
            return False
        if self._unsent_since is None:
            self._unsent_since = now
        self._most_unsent = max(self._most_unsent, unsent)
        allowed = 2 * GRACE_SECONDS + self._most_unsent / self.owner.settings.min_rate
        if now - self._unsent_since <= min(allowed, 2 * self.owner.settings.body_timeout):
            return False
        self.abort("unread response")
        return True

    def abort(self, reason: str) -> None:
        """End the connection at once; what was not sent is lost."""
        self.owner.count_closed(reason)
        self._phase = "closing"
        self.transport.abort()

    def _update_phase(self) -> None:
        """Set the phase by the state of the HTTP parser."""
        if self._phase == "closing":
            return
        theirs, ours = self.conn.their_state, self.conn.our_state
        complete = self.cycle is None or self.cycle.response_complete
        if theirs is h11.SEND_BODY:
            self._set_phase("discard" if complete else "body")
        elif not complete:
            self._set_phase("response")
        elif theirs is h11.IDLE and ours is h11.IDLE:
            started = self.cycle is None or bool(self.conn.trailing_data[0])
            self._set_phase("head" if started else "idle")

    def _set_phase(self, phase: Phase) -> None:
        if phase != self._phase:
            self._phase, self.since = phase, self.loop.time()

"""ASGI middleware: access, admission, limits of bodies, response headers, logs and metrics."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xmodal.service.admission import Admission, client_address
from xmodal.service.errors import RequestError, problem_response
from xmodal.service.headers import RESPONSE_HEADERS
from xmodal.service.metrics import Metrics
from xmodal.service.request_log import RequestRecord, log_request
from xmodal.service.settings import GRACE_SECONDS, Settings
from xmodal.service.tokens import Role, TokenCheck
from xmodal.service.tracing import request_span

PUBLIC_PATHS = ("/", "/page/", "/health/", "/openapi.json")
"""Paths that need no token, because they return no data of the index. A path that ends in a slash
includes all paths below it, except ``/``, which is the search page alone."""
WRITE_PATHS = ("/v1/encode", "/v1/embed")
"""Paths that need the role write: their codes are stored in indexes."""
RELOAD_SECONDS = 5.0
"""Seconds between checks whether a token file changed."""
FLUSH_SECONDS = 1.0
"""Seconds for the responses to requests that a shutdown ends."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


@dataclass
class _Exchange:
    """One request with its response."""

    scope: Scope
    client: str
    id: str
    status: int = 500
    started: bool = False
    received: int = 0
    reserved: int = 0
    sent: int = 0


class ServiceMiddleware:
    """Checks each HTTP request before it is routed, and completes and counts each response."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._hosts = {host.lower() for host in settings.hosts}
        self._tokens = TokenCheck(settings.tokens, settings.token_files)
        self._admission = Admission(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; before its shutdown, let requests that were ended be answered."""

        async def receive_late() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._admission.wait_until_idle(FLUSH_SECONDS)
            return message

        watching = asyncio.create_task(self._tokens.watch(RELOAD_SECONDS))
        try:
            await self._app(scope, receive_late, send)
        finally:
            watching.cancel()

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        sent_id = headers.get("x-request-id", "")
        exchange = _Exchange(
            scope,
            client_address(scope, self._settings.proxy_headers),
            sent_id if REQUEST_ID.fullmatch(sent_id) else uuid4().hex,
        )
        start = time.perf_counter()
        self._metrics.running.inc()
        try:
            with request_span(scope, exchange.id) as span:
                await self._answer(exchange, headers, receive, send)
                span.end(_route(scope), exchange.status)
        finally:
            self._metrics.running.dec()
            self._record(exchange, time.perf_counter() - start)

    async def _answer(
        self, exchange: _Exchange, headers: Headers, receive: Receive, send: Send
    ) -> None:
        """Respond to a request, also if it is refused or if the service stops."""
        scope = exchange.scope

        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status, exchange.started = message["status"], True
                response_headers = MutableHeaders(scope=message)
                for name, value in RESPONSE_HEADERS.items():
                    response_headers.setdefault(name, value)
                response_headers["X-Request-Id"] = exchange.id
            else:
                exchange.sent += len(message.get("body", b""))
            await send(message)

        try:
            with ExitStack() as stack:
                self._check(exchange, headers)
                received = self._admit(exchange, headers, receive, stack)
                await self._app(scope, received, send_completed)
        except RequestError as error:
            response = problem_response(error.status, str(error), error.headers)
            await response(scope, receive, send_completed)
        except asyncio.CancelledError:
            if exchange.started:
                raise
            detail = "the service is stopping: retry"
            close = {"Connection": "close", "Retry-After": "1"}
            await problem_response(503, detail, close)(scope, receive, send_completed)
        finally:
            self._admission.release(exchange.client, exchange.reserved)

    def _check(self, exchange: _Exchange, headers: Headers) -> None:
        """Raise RequestError for a wrong host or token."""
        path, host = str(exchange.scope["path"]), headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self._hosts and name.lower() not in self._hosts:
            self._refuse("host")
            expected = ", ".join(self._settings.hosts)
            raise RequestError(
                421,
                f"the host is {name[:100]!r}, expected {expected}: see xmodal serve --allow-host",
            )
        if not self._tokens.required or _is_public(path):
            return
        token = self._tokens.find(headers.get("authorization", ""))
        if token is None:
            self._refuse("token")
            raise RequestError(
                401,
                "a token is required: send the header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )
        exchange.client = token.name
        needed: Role = "write" if path in WRITE_PATHS else "search"
        if not token.roles & {needed, "write"}:
            self._refuse("role")
            raise RequestError(403, f"the token {token.name} lacks the role {needed}")

    def _admit(
        self, exchange: _Exchange, headers: Headers, receive: Receive, stack: ExitStack
    ) -> Receive:
        """Count a request as in progress until ``stack`` ends, as soon as its body is complete.

        A request whose body is not complete takes no place of others. Raises RequestError.
        """

        def enter() -> None:
            with self._counted():
                stack.enter_context(self._admission.enter(exchange.client))

        method, path = exchange.scope["method"], str(exchange.scope["path"])
        if path.startswith("/health/"):
            return receive
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if method in ("GET", "HEAD") or not has_body:
            enter()
            return receive
        with self._counted():
            self._admission.check(exchange.client)
        return self._limited(exchange, receive, enter)

    def _limited(self, exchange: _Exchange, receive: Receive, enter: Callable[[], None]) -> Receive:
        """``receive`` with limits of time, rate and memory; calls ``enter`` after the last part."""
        settings, start, complete = self._settings, time.monotonic(), False

        async def receive_limited() -> Message:
            nonlocal complete
            seconds = min(
                settings.body_timeout, GRACE_SECONDS + exchange.received / settings.min_rate
            )
            try:
                async with asyncio.timeout(
                    None if complete else start + seconds - time.monotonic()
                ):
                    message = await receive()
            except TimeoutError:
                self._refuse("slow body")
                raise RequestError(
                    408,
                    f"{exchange.received:,} bytes of the body were received in {seconds:.3g} s, "
                    f"expected {settings.min_rate:,} per second and all in "
                    f"{settings.body_timeout:g} s",
                ) from None
            if message["type"] == "http.request" and not complete:
                size = len(message.get("body", b""))
                exchange.received += size
                if exchange.received <= settings.max_body_bytes:
                    self._reserve(exchange, size)
                if not message.get("more_body"):
                    complete = True
                    enter()
            return message

        return receive_limited

    def _reserve(self, exchange: _Exchange, size: int) -> None:
        with self._counted():
            self._admission.reserve(exchange.client, size)
        exchange.reserved += size

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a refusal in the block."""
        try:
            yield
        except RequestError as error:
            self._refuse("client" if error.status == 429 else "load")
            raise

    def _refuse(self, reason: str) -> None:
        self._metrics.refused.labels(reason).inc()

    def _record(self, exchange: _Exchange, seconds: float) -> None:
        """Count and log a completed request."""
        route, status, metrics = _route(exchange.scope), exchange.status, self._metrics
        metrics.requests.labels(route, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        metrics.bytes.labels("received").inc(exchange.received)
        metrics.bytes.labels("sent").inc(exchange.sent)
        log_request(
            RequestRecord(
                id=exchange.id,
                client=exchange.client,
                method=exchange.scope["method"],
                route=route,
                status=status,
                ms=round(1000 * seconds, 2),
                received=exchange.received,
                sent=exchange.sent,
            )
        )


def _route(scope: Scope) -> str:
    """The path of a route; ``other`` for a path that does not exist."""
    return getattr(scope.get("route"), "path", "other")


def _is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or any(
        path.startswith(prefix) for prefix in PUBLIC_PATHS[1:] if prefix.endswith("/")
    )

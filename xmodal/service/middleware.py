"""ASGI middleware: host and token checks, load limit, response headers, metrics of requests."""

from __future__ import annotations

import hmac
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xmodal.service.errors import problem_response
from xmodal.service.metrics import Metrics
from xmodal.service.settings import Settings

PUBLIC_PATHS = ("/", "/page/", "/health/", "/openapi.json")
"""Paths that need no token, because they return no data of the index. A path that ends in a slash
includes all paths below it, except ``/``, which is the search page alone."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ServiceMiddleware:
    """Checks each HTTP request before it is routed, and completes and counts each response."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._hosts = {host.lower() for host in settings.hosts}
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        self._running += 1
        self._metrics.running.inc()
        try:
            error = self._check(scope)
            await (error or self._app)(scope, receive, send_with_headers)
        finally:
            self._running -= 1
            self._metrics.running.dec()
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)

    def _check(self, scope: Scope) -> ASGIApp | None:
        """The error response to a request that is not accepted, or None."""
        headers, path = Headers(scope=scope), str(scope["path"])
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self._hosts and name.lower() not in self._hosts:
            expected = ", ".join(self._settings.hosts)
            return problem_response(
                421,
                f"the host is {name[:100]!r}, expected {expected}: see xmodal serve --allow-host",
            )
        limit = self._settings.max_concurrent_requests
        if self._running > limit and not path.startswith("/health/"):
            return problem_response(
                503, f"{self._running - 1} requests are in progress: retry", {"Retry-After": "1"}
            )
        if self._settings.token is not None and not _is_public(path):
            scheme, _, token = headers.get("authorization", "").partition(" ")
            equal = hmac.compare_digest(
                token.strip().encode("utf-8", "surrogateescape"), self._settings.token.encode()
            )
            if scheme.lower() != "bearer" or not equal:
                return problem_response(
                    401,
                    "a token is required: send the header Authorization: Bearer TOKEN",
                    {"WWW-Authenticate": "Bearer"},
                )
        return None


def _is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or any(
        path.startswith(prefix) for prefix in PUBLIC_PATHS[1:] if prefix.endswith("/")
    )

"""What every request passes: host, token and load are checked, headers are set, time is taken."""

from __future__ import annotations

import hmac
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xmodal.service.errors import problem
from xmodal.service.metrics import Meters
from xmodal.service.settings import Settings

OPEN = ("/", "/page/", "/health/", "/openapi.json")
"""Paths (with a slash at the end: and all below) that need no token: they tell nothing of the
index. ``/`` is the page alone."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """ASGI middleware around the routes of one service."""

    def __init__(self, app: ASGIApp, settings: Settings, meters: Meters) -> None:
        self._app, self._settings, self._meters = app, settings, meters
        self._hosts = {host.lower() for host in settings.hosts}
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        self._running += 1
        self._meters.running.inc()
        try:
            refusal = self._refusal(scope)
            await (refusal or self._app)(scope, receive, sending)
        finally:
            self._running -= 1
            self._meters.running.dec()
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._meters.requests.labels(path, str(status)).inc()
            self._meters.seconds.labels(path).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers, path = Headers(scope=scope), str(scope["path"])
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self._hosts and name.lower() not in self._hosts:
            expected = ", ".join(self._settings.hosts)
            return problem(
                421, f"asked as {name[:100]!r}, expected {expected}: see xmodal serve --allow-host"
            )
        if self._running > self._settings.waiting and not path.startswith("/health/"):
            return problem(
                503, f"{self._running - 1} requests are waiting: try again", {"Retry-After": "1"}
            )
        if self._settings.token is not None and not _is_open(path):
            kind, _, token = headers.get("authorization", "").partition(" ")
            fits = hmac.compare_digest(
                token.strip().encode("utf-8", "surrogateescape"), self._settings.token.encode()
            )
            if kind.lower() != "bearer" or not fits:
                return problem(
                    401,
                    "this service asks for a token: send Authorization: Bearer TOKEN",
                    {"WWW-Authenticate": "Bearer"},
                )
        return None


def _is_open(path: str) -> bool:
    return path in OPEN or any(path.startswith(one) for one in OPEN[1:] if one.endswith("/"))

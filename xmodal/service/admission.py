"""Admission of requests: limits in total and per client, for work and for memory of bodies.

A client is a token, or without tokens an address. A client above its share gets status 429, so that
it cannot take the share of others; 503 is the answer when all shares together are too much.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.types import Scope

from xmodal.service.errors import RequestError
from xmodal.service.settings import Settings

RETRY = {"Retry-After": "1"}
IPV6_PREFIX = 64
"""Bits of an IPv6 address that identify a client: a host can use all addresses of its /64."""


class Admission:
    """Counts the requests in progress and the bytes of their bodies, by client."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Number of requests in progress."""
        return self._running.total()

    def check(self, client: str) -> None:
        """Raise RequestError with status 429 or 503 if ``client`` cannot start a request now."""
        share, limit = (
            self._settings.max_requests_per_client,
            self._settings.max_concurrent_requests,
        )
        if self._running[client] >= share:
            raise RequestError(
                429, f"{share} requests of this client are in progress: retry", RETRY
            )
        if self.running >= limit:
            raise RequestError(503, f"{limit} requests are in progress: retry", RETRY)

    @contextmanager
    def enter(self, client: str) -> Iterator[None]:
        """Count a request as in progress for the time of the block. Raises RequestError."""
        self.check(client)
        _add(self._running, client, 1)
        self._idle.clear()
        try:
            yield
        finally:
            _add(self._running, client, -1)
            if not self._running:
                self._idle.set()

    def reserve(self, client: str, count: int) -> None:
        """Reserve memory for ``count`` bytes of a body. Raises RequestError."""
        limit = self._settings.max_bodies_bytes
        if self._bytes[client] + count > max(limit // 2, self._settings.max_body_bytes):
            raise RequestError(429, "the bodies of this client take too much memory: retry", RETRY)
        if self._bytes.total() + count > limit:
            raise RequestError(503, "the bodies of requests take too much memory: retry", RETRY)
        _add(self._bytes, client, count)

    def release(self, client: str, count: int) -> None:
        """Return reserved memory."""
        _add(self._bytes, client, -count)

    async def wait_until_idle(self, seconds: float) -> None:
        """Wait until no request is in progress, for at most ``seconds``."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            pass


def client_address(scope: Scope, proxy_headers: bool) -> str:
    """The address of a client; of an IPv6 address, its /64 network.

    With ``proxy_headers`` it is the last address of X-Forwarded-For, which the proxy adds. Those
    before it were sent by the client, which can invent them.
    """
    address = scope["client"][0] if scope.get("client") else ""
    if proxy_headers:
        forwarded = Headers(scope=scope).getlist("x-forwarded-for")
        if forwarded:
            address = forwarded[-1].rpartition(",")[2].strip()
    return network(address)


def network(address: str) -> str:
    """The part of an address that identifies a client."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))


def _add(counter: Counter[str], key: str, count: int) -> None:
    """Change a count; a count of 0 takes no memory."""
    counter[key] += count
    if not counter[key]:
        del counter[key]

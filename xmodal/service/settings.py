"""Limits and access rules of a service."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xmodal.service.tokens import Token
from xmodal.web.allowed_hosts import AllowedHosts

GRACE_SECONDS = 5.0
"""Seconds before the rate of a transfer is measured."""


@dataclass(frozen=True)
class Settings:
    """Limits and access rules of one service.

    pictures: images are served from this folder only.
    hosts: accepted Host headers, without a port; empty: all. The check prevents DNS rebinding, by
        which a web page reaches a service on this machine under the page's own host name.
    picture_hosts: hosts from which pictures named by an address are downloaded; None: none.
    download_timeout: seconds for such a download.
    tokens, token_files: bearer tokens, of which requests must send one; none: no token is needed.
        The files are read again when they change.
    proxy_headers: the client's address is the last one in X-Forwarded-For, which a proxy adds.
    max_body_bytes, max_pixels: largest request body, and largest image in it.
    max_bodies_bytes: memory for the bodies of all requests; of one client, half of it.
    header_timeout, body_timeout, request_timeout: seconds to receive the head and the body of a
        request, and to process it.
    min_rate: bytes per second that a client must send of a body or read of a response, on average
        after GRACE_SECONDS.
    shutdown_timeout: seconds from SIGTERM until requests in progress are answered with status 503.
    max_concurrent_requests, max_requests_per_client: further requests are answered with status 503;
        of one client, with 429. A client is a token, or without tokens an address.
    max_connections, max_connections_per_address: of further connections, the one that has waited
        longest for a request is closed.
    max_batch_size: texts encoded in one batch; for images, a quarter of it.
    reload_interval: seconds between checks whether a local index was saved by another process.
    """

    pictures: Path = field(default_factory=Path.cwd)
    hosts: tuple[str, ...] = ()
    picture_hosts: AllowedHosts | None = None
    download_timeout: float = 10.0
    tokens: tuple[Token, ...] = ()
    token_files: tuple[Path, ...] = ()
    proxy_headers: bool = False
    max_body_bytes: int = 10 * 1024 * 1024
    max_bodies_bytes: int = 256 * 1024 * 1024
    max_pixels: int = 25_000_000
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    request_timeout: float = 30.0
    min_rate: int = 8192
    shutdown_timeout: float = 7.0
    max_concurrent_requests: int = 512
    max_requests_per_client: int = 256
    max_connections: int = 2048
    max_connections_per_address: int = 512
    max_batch_size: int = 32
    reload_interval: float = 2.0

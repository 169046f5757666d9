"""Limits and access rules of a service."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xmodal.web.allowed_hosts import AllowedHosts


@dataclass(frozen=True)
class Settings:
    """Limits and access rules of one service.

    pictures: images are served from this folder only.
    hosts: accepted Host headers, without a port; empty: all. The check prevents DNS rebinding, by
        which a web page reaches a service on this machine under the page's own host name.
    picture_hosts: hosts from which pictures named by an address are downloaded; None: none.
    download_timeout: seconds for such a download.
    token: bearer token that requests must send; None: none.
    max_body_bytes, max_pixels: largest request body, and largest image in it.
    header_timeout, body_timeout, request_timeout: seconds to receive the head and the body of a
        request, and to process it.
    max_concurrent_requests: further requests are answered with status 503.
    max_batch_size: texts encoded in one batch; for images, a quarter of it.
    reload_interval: seconds between checks whether a local index was saved by another process.
    """

    pictures: Path = field(default_factory=Path.cwd)
    hosts: tuple[str, ...] = ()
    picture_hosts: AllowedHosts | None = None
    download_timeout: float = 10.0
    token: str | None = field(default=None, repr=False)
    max_body_bytes: int = 16 * 1024 * 1024
    max_pixels: int = 25_000_000
    header_timeout: float = 10.0
    body_timeout: float = 20.0
    request_timeout: float = 30.0
    max_concurrent_requests: int = 256
    max_batch_size: int = 32
    reload_interval: float = 2.0

"""HTTP requests to servers other than OpenSearch: limited size and time, verified TLS."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, LocationValueError, TimeoutError

SCHEMES = ("http", "https")
CHUNK_BYTES = 1 << 16


class Response(NamedTuple):
    """Status (any, also errors) and body of an answer."""

    status: int
    body: bytes


class RequestFailed(Exception):
    """No complete answer was received. The message is the reason, in one line, without the URL."""


def request(
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    max_bytes: int = 1 << 20,
    max_redirects: int = 0,
    use_proxies: bool = False,
    ca: Path | None = None,
) -> Response:
    """Send one request, without retries, and return the answer.

    ``timeout`` (seconds) limits each wait for the server and the time of the whole body,
    ``max_bytes`` the length of the body. Up to ``max_redirects`` redirects are followed, to http
    and https only; the next one is returned as the answer. ``headers``, which may contain a token,
    are not sent to another host. ``use_proxies``: use the proxies of the environment variables.
    ``ca``: certificates of the authorities to trust instead of the system's. Raises RequestFailed.
    """
    end = time.monotonic() + timeout
    try:
        while True:
            with _pool(url, use_proxies, ca) as pool:
                answer = pool.request(
                    method,
                    url,
                    body=body,
                    headers=headers,
                    timeout=timeout,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
                with closing(answer):
                    location = answer.get_redirect_location()
                    if not location or max_redirects < 1:
                        return Response(answer.status, _read(answer, max_bytes, timeout, end))
            target, max_redirects = urljoin(url, location), max_redirects - 1
            if urlsplit(target).scheme not in SCHEMES:
                raise RequestFailed(f"it leads to {urlsplit(target).scheme}, expected http(s)")
            if urlsplit(target)[:2] != urlsplit(url)[:2]:
                headers = None
            url = target
    except (HTTPError, OSError, ValueError) as error:
        raise RequestFailed(_reason(error)) from None


def _pool(url: str, use_proxies: bool, ca: Path | None) -> urllib3.PoolManager:
    """Return a connection pool, which verifies certificates (``ca``: see :func:`request`)."""
    parts = urlsplit(url)
    if (
        not parts.hostname or parts.port == 0
    ):  # parts.port raises ValueError for a port that is not a number
        raise ValueError("the address has no host, or port 0")
    proxy = getproxies().get(parts.scheme) if use_proxies else None
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=ca and str(ca))
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    user, at, _ = urlsplit(proxy).netloc.rpartition("@")
    headers = urllib3.make_headers(proxy_basic_auth=unquote(user)) if at else None
    return urllib3.ProxyManager(
        proxy, proxy_headers=headers, cert_reqs="CERT_REQUIRED", ca_certs=ca and str(ca)
    )


def _read(answer: urllib3.BaseHTTPResponse, max_bytes: int, timeout: float, end: float) -> bytes:
    """Return the whole body, without decompression. Raises RequestFailed."""
    body = bytearray()
    while chunk := answer.read1(CHUNK_BYTES, decode_content=False):
        body += chunk
        if len(body) > max_bytes:
            raise RequestFailed(f"the answer has more than {max_bytes:,} bytes")
        if time.monotonic() > end:
            raise RequestFailed(f"the answer took more than {timeout:g} seconds")
    if answer.length_remaining:
        raise RequestFailed(
            f"the answer was cut off, {answer.length_remaining:,} bytes are missing"
        )
    return bytes(body)


def _reason(error: BaseException) -> str:
    """Return the innermost reason; urllib3's own messages contain the repr of objects."""
    if isinstance(error, LocationValueError):
        return "the address is not valid"
    if isinstance(error, IncompleteRead):
        return f"the answer was cut off, {error.expected:,} bytes are missing"
    inner = error.__cause__ or next(
        (arg for arg in reversed(error.args) if isinstance(arg, BaseException)), None
    )
    if inner is not None:
        return _reason(inner)
    return "timed out" if isinstance(error, TimeoutError) else " ".join(str(error).split())

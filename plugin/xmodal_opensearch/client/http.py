"""HTTP requests beside those of the OpenSearch client: bounded in size and time, TLS verified."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, LocationValueError, TimeoutError

SCHEMES = ("http", "https")
CHUNK = 1 << 16


class Response(NamedTuple):
    """An answer with any status, and its body."""

    status: int
    body: bytes


class RequestFailed(Exception):
    """There is no whole answer; the text is the reason, in one line and without the address."""


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
) -> Response:
    """Send one request, without retries, and read the answer.

    ``timeout`` (seconds) bounds each wait for the server and the time of the whole body,
    ``max_bytes`` the length of the body. Redirects are followed to http and https only, and
    ``headers``, which may hold a token, are not sent to another host; a redirect beyond
    ``max_redirects`` is returned as it is. ``use_proxies``: use the proxies of the environment.
    Raises RequestFailed.
    """
    end = time.monotonic() + timeout
    try:
        while True:
            with _pool(url, use_proxies) as pool:
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


def _pool(url: str, use_proxies: bool) -> urllib3.PoolManager:
    """The connections for one request; certificates are verified by the system's authorities."""
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0:  # the property raises for a port that is no number
        raise ValueError("the address has no host, or port 0")
    proxy = getproxies().get(parts.scheme) if use_proxies else None
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return urllib3.PoolManager(cert_reqs="CERT_REQUIRED")
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    user, at, _ = urlsplit(proxy).netloc.rpartition("@")
    identity = urllib3.make_headers(proxy_basic_auth=unquote(user)) if at else None
    return urllib3.ProxyManager(proxy, proxy_headers=identity, cert_reqs="CERT_REQUIRED")


def _read(answer: urllib3.BaseHTTPResponse, max_bytes: int, timeout: float, end: float) -> bytes:
    """The whole body; as it was sent, if it is compressed. Raises RequestFailed."""
    body = bytearray()
    while chunk := answer.read1(CHUNK, decode_content=False):
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
    """The innermost reason, for urllib3 puts whole objects into its messages."""
    if isinstance(error, LocationValueError):
        return "the address is not valid"
    if isinstance(error, IncompleteRead):
        return f"the answer was cut off, {error.expected:,} bytes are missing"
    inner = error.__cause__ or next(
        (one for one in reversed(error.args) if isinstance(one, BaseException)), None
    )
    if inner is not None:
        return _reason(inner)
    return "timed out" if isinstance(error, TimeoutError) else " ".join(str(error).split())

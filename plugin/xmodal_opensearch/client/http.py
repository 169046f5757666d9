"""HTTP requests to servers other than OpenSearch: limited size and time, verified TLS."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from xmodal.web.failures import RequestFailed, failure_reason

CHUNK_BYTES = 1 << 16


class Response(NamedTuple):
    """Status (any, also errors) and body of an answer."""

    status: int
    body: bytes


def request(
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    max_bytes: int = 1 << 20,
    ca: Path | None = None,
) -> Response:
    """Send one request, without retries, and return the answer, which may be a redirect.

    ``timeout`` (seconds) limits each wait for the server and the time of the whole body,
    ``max_bytes`` the length of the body. Proxies are not used. ``ca``: file of the
    authorities to trust instead of the system's. Raises RequestFailed.
    """
    end = time.monotonic() + timeout
    try:
        parts = urlsplit(url)
        # parts.port raises ValueError for a port that is not a number
        if not parts.hostname or parts.port == 0:
            raise ValueError("the address has no host, or port 0")
        with urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=ca and str(ca)) as pool:
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
                return Response(answer.status, _read(answer, max_bytes, timeout, end))
    except (HTTPError, OSError, ValueError) as error:
        raise RequestFailed(failure_reason(error)) from None


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

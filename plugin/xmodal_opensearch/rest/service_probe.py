"""Test request to the HTTP service: checks that it is ready, and reads bits and fingerprint."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from xmodal.errors import ConfigError, ServerFailure
from xmodal.web.failures import RequestFailed
from xmodal_opensearch.client.http import request

TIMEOUT = 60.0
MAX_BYTES = 1 << 20
SAMPLE = "a word to try it with"
"""The text that is encoded for the test, by the service directly and through the cluster."""


class ServiceInfo(NamedTuple):
    """Bits and fingerprint of the service's encoder; code of the sample as bits / 8 int8 values."""

    bits: int
    fingerprint: str
    text_code: list[int]


def check_url(url: str) -> str:
    """Return the address of a service without a final slash. Raises ConfigError if invalid."""
    parts = urlsplit(url)
    if "@" in url:
        raise ConfigError(
            "the address of the service contains credentials, and it is printed and stored: pass a "
            "token by --token-file instead"
        )
    try:
        port = parts.port or 1
    except ValueError:
        port = 0
    valid = parts.scheme in ("http", "https") and parts.hostname and port
    if not valid or parts.query or parts.fragment or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise ConfigError(
            f"the address of the service is {url!r}, expected one such as http://10.0.0.5:8000"
        )
    return url.rstrip("/")


def probe_service(url: str, token: str | None = None) -> ServiceInfo:
    """Encode the sample at ``url``. Raises ServerFailure if the service does not return a code."""
    _request(f"{url}/health/ready", None, None)
    body = json.dumps({"inputText": SAMPLE, "inputImage": None}).encode()
    text = _request(f"{url}/v1/embed", body, token)
    try:
        answer = json.loads(text)
        bits, fingerprint, code = (answer[name] for name in ("bits", "encoder", "text_code"))
        if len(code) * 8 == bits and all(-128 <= value <= 127 for value in code):
            return ServiceInfo(int(bits), str(fingerprint), [int(value) for value in code])
    except (ValueError, TypeError, KeyError):
        pass
    raise ServerFailure(
        f"{url} answered {text[:80]!r}, expected a service started by xmodal serve", 0, "service"
    )


def is_private(url: str) -> bool:
    """Whether the host of ``url`` has a loopback or private address on this machine.

    A name that this machine cannot resolve counts as private.
    """
    host = urlsplit(url).hostname or ""
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return True
    return any(ipaddress.ip_address(one.partition("%")[0]).is_private for one in addresses)


def _request(url: str, body: bytes | None, token: str | None) -> str:
    headers = {"content-type": "application/json"} if body is not None else {}
    if token is not None and body is not None:
        headers["authorization"] = f"Bearer {token}"
    try:
        # No proxy, because the cluster uses none. No redirects: the token must not reach another
        # address.
        answer = request(
            "GET" if body is None else "POST",
            url,
            body=body,
            headers=headers,
            timeout=TIMEOUT,
            max_bytes=MAX_BYTES,
        )
    except RequestFailed as error:
        raise ServerFailure(
            f"no service answers at {url} ({error}): start it with xmodal serve, and pass the "
            "address at which the cluster reaches it",
            0,
            "connection",
        ) from None
    if answer.status // 100 != 2:
        detail = _problem_detail(answer.body)
        message = f"{url} answered {answer.status}{detail}"
        if answer.status in (401, 403):
            message += ": pass the token of the service by --token-file"
        raise ServerFailure(message, answer.status, detail or "refused")
    return answer.body.decode("utf-8", "replace")


def _problem_detail(body: bytes) -> str:
    """Return the detail or title of a problem+json body as " (...)", or "" if there is none."""
    try:
        problem = json.loads(body)
        text = str(problem.get("detail") or problem.get("title") or "")
    except (ValueError, AttributeError):
        text = ""
    return f" ({' '.join(text.split())[:200]})" if text else ""

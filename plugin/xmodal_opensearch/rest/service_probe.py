"""Our own HTTP service, asked as ml-commons will ask it: is it there, whose codes does it give."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from xmodal.errors import ConfigError, ServerFailure
from xmodal_opensearch.client.http import RequestFailed, request

TIMEOUT = 60.0
MAX_BYTES = 1 << 20
SAMPLE = "a word to try it with"


class Answer(NamedTuple):
    """What the service made of the sample."""

    bits: int
    encoder: str
    text_code: list[int]


def check_url(url: str) -> str:
    """The address of a service, without a slash at its end. Raises ConfigError."""
    parts = urlsplit(url)
    if "@" in url:
        raise ConfigError(
            "the service's address names a user: it is printed and stored, so give a token by "
            "--token-file"
        )
    try:
        port = parts.port or 1
    except ValueError:
        port = 0
    plain = parts.scheme in ("http", "https") and parts.hostname and port
    if not plain or parts.query or parts.fragment or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise ConfigError(
            f"the service is {url!r}, expected an address such as http://10.0.0.5:8000"
        )
    return url.rstrip("/")


def ask(url: str, token: str | None = None) -> Answer:
    """Encode one sample at ``url``. Raises ServerFailure in one line that says what is wrong."""
    _request(f"{url}/health/ready", None, None)
    body = json.dumps({"inputText": SAMPLE, "inputImage": None}).encode()
    told = _request(f"{url}/v1/embed", body, token)
    try:
        answer = json.loads(told)
        bits, encoder, code = (answer[name] for name in ("bits", "encoder", "text_code"))
        if len(code) * 8 == bits and all(-128 <= one <= 127 for one in code):
            return Answer(int(bits), str(encoder), [int(one) for one in code])
    except (ValueError, TypeError, KeyError):
        pass
    raise ServerFailure(
        f"{url} answers {told[:80]!r}, expected a service of xmodal serve", 0, "service"
    )


def is_private(url: str) -> bool:
    """Whether the host of an address is in this machine or a private network, seen from here."""
    host = urlsplit(url).hostname or ""
    try:
        found = {one[4][0] for one in socket.getaddrinfo(host, None)}
    except OSError:  # a name that only the cluster knows is hardly a public one
        return True
    return any(ipaddress.ip_address(str(one).partition("%")[0]).is_private for one in found)


def _request(url: str, body: bytes | None, token: str | None) -> str:
    headers = {"content-type": "application/json"} if body is not None else {}
    if token is not None and body is not None:
        headers["authorization"] = f"Bearer {token}"
    try:
        # No proxies, for the cluster calls the service itself; no redirects, so that the token is
        # sent to the given address only.
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
            f"no service answers at {url} ({error}): start it with xmodal serve, and name it as "
            "the cluster reaches it",
            0,
            "connection",
        ) from None
    if answer.status // 100 != 2:
        why = _detail(answer.body)
        what = f"{url} answered {answer.status}{why}"
        if answer.status in (401, 403):
            what += ": give the service's token by --token-file"
        raise ServerFailure(what, answer.status, why or "refused")
    return answer.body.decode("utf-8", "replace")


def _detail(body: bytes) -> str:
    """What a problem says of itself, in front of which stands a space."""
    try:
        told = json.loads(body)
        text = str(told.get("detail") or told.get("title") or "")
    except (ValueError, AttributeError):
        text = ""
    return f" ({' '.join(text.split())[:200]})" if text else ""

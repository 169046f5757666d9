"""One HTTP request to an allowed host, limited in time and size.

The name of the host is resolved once, and the connection is made to an address that
:class:`AllowedHosts` has checked; TLS certificates are verified for the name.

The proxies of the environment (``http_proxy``, ``https_proxy``, ``no_proxy``) are used. A proxy
resolves names itself, so that their addresses cannot be checked here: through a proxy only hosts
that are allowed by name, and IP addresses, are requested.
"""

from __future__ import annotations

import socket
import threading
import time
from base64 import b64encode
from contextlib import closing, suppress
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from xmodal.errors import DataError
from xmodal.web.address import WebAddress
from xmodal.web.allowed_hosts import AllowedHosts
from xmodal.web.failures import RequestFailed, failure_reason

CHUNK_BYTES = 1 << 16
MAX_ADDRESSES = 3
"""Addresses of a host to which a connection is tried."""
CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a connection to one address."""


class Answer(NamedTuple):
    """Status, address of a redirect or None, seconds of ``Retry-After`` or 0, and the body.

    Answers with an error status, and redirects, have no body.
    """

    status: int
    location: str | None
    retry_after: float
    body: bytes


def guarded_get(
    address: WebAddress, hosts: AllowedHosts, *, user: str | None, seconds: float, max_bytes: int
) -> Answer:
    """Request an address. Raises DataError if it is refused, RequestFailed without an answer.

    ``user``: "user:password" to send, or None. ``seconds``: for all but the resolution of the name.
    """
    headers = {
        "host": address.authority,
        "accept-encoding": "identity",
        "connection": "close",
        "user-agent": "xmodal",
    }
    if user is not None:
        headers["authorization"] = _basic(user)
    deadline = _Deadline(seconds)
    try:
        with deadline:
            connection, target = _open(address, hosts, headers, deadline)
            with closing(connection):
                connection.request(
                    "GET", target, headers=headers, preload_content=False, decode_content=False
                )
                with closing(connection.getresponse()) as response:
                    answer = _read(response, max_bytes)
    except (HTTPError, HTTPException, OSError, ValueError) as error:
        if not deadline.expired:
            raise RequestFailed(failure_reason(error)) from None
    if deadline.expired:  # an answer without a length seems to be complete then
        raise RequestFailed(f"the answer took more than {seconds:.1f} seconds")
    return answer


class _Deadline:
    """Closes the connection of a request after some seconds, in whatever state it is.

    A limit for each wait, as sockets have it, does not end an answer that arrives byte by byte.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._end = time.monotonic() + seconds
        self._connection: HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(max(0.0, seconds), self._expire)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def remaining(self) -> float:
        """Return the remaining seconds, for the limit of a single wait."""
        return max(0.01, self._end - time.monotonic())

    def connect(self, connection: HTTPConnection) -> None:
        """Open a connection, which is closed at the end of the time."""
        self._connection = connection
        connection.connect()
        connection.timeout = self.remaining() + 1  # the deadline comes first
        self._socket = connection.sock  # the connection forgets it when it has the answer
        if self.expired:
            self._expire()

    def _expire(self) -> None:
        self.expired = True
        current = self._socket or getattr(self._connection, "sock", None)
        if current is not None:
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(current, socket.SHUT_RDWR)


def _open(
    address: WebAddress, hosts: AllowedHosts, headers: dict[str, str], deadline: _Deadline
) -> tuple[HTTPConnection, str]:
    """Return an open connection and what to request there; a proxy may need more headers.

    Raises DataError if the host is refused, RequestFailed if it has no address, and the errors of
    urllib3 for the address that was tried last.
    """
    proxy = getproxies().get(address.scheme)
    if proxy and not proxy_bypass(address.authority):
        return _open_proxy(proxy, address, hosts, headers, deadline)
    try:
        addresses = hosts.resolve(address.host, address.port)
    except OSError as error:
        raise RequestFailed(f"the host is not found ({error.strerror})") from None
    failure: Exception | None = None
    for ip in addresses[:MAX_ADDRESSES]:
        timeout = min(CONNECT_TIMEOUT, deadline.remaining())
        connection = (
            HTTPSConnection(
                str(ip),
                address.port,
                timeout=timeout,
                cert_reqs="CERT_REQUIRED",
                server_hostname=address.host,
            )
            if address.scheme == "https"
            else HTTPConnection(str(ip), address.port, timeout=timeout)
        )
        try:
            deadline.connect(connection)
            return connection, address.path
        except (HTTPError, OSError) as error:
            connection.close()
            failure = error
    assert failure is not None
    raise failure


def _open_proxy(
    proxy: str,
    address: WebAddress,
    hosts: AllowedHosts,
    headers: dict[str, str],
    deadline: _Deadline,
) -> tuple[HTTPConnection, str]:
    """Return the same for a proxy. Raises DataError for a host that is not allowed there."""
    hosts.check_unresolved(address.host, address.port)
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "http":
        raise RequestFailed(
            f"the proxy in {address.scheme}_proxy is not valid, expected http://HOST"
        )
    own = {}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        own = {"proxy-authorization": _basic(user)}
    timeout = min(CONNECT_TIMEOUT, deadline.remaining())
    if address.scheme == "http":
        headers |= own
        connection, target = HTTPConnection(host, port, timeout=timeout), address.without_user()
    else:
        connection = HTTPSConnection(host, port, timeout=timeout, cert_reqs="CERT_REQUIRED")
        connection.set_tunnel(address.host, address.port, own)
        target = address.path
    deadline.connect(connection)
    return connection, target


def _read(answer: BaseHTTPResponse, max_bytes: int) -> Answer:
    """Return the answer with its whole body. Raises DataError for a body that is too long."""
    location = answer.get_redirect_location() or None
    retry_after = answer.headers.get("retry-after", "")
    seconds = float(retry_after) if retry_after.isdecimal() and len(retry_after) < 6 else 0.0
    body = bytearray()
    if location is None and answer.status // 100 == 2:
        if (answer.length_remaining or 0) > max_bytes:
            raise DataError(f"the picture has more than {max_bytes:,} bytes")
        while chunk := answer.read1(CHUNK_BYTES, decode_content=False):
            body += chunk
            if len(body) > max_bytes:
                raise DataError(f"the picture has more than {max_bytes:,} bytes")
        if answer.length_remaining:
            raise RequestFailed(
                f"the answer was cut off, {answer.length_remaining:,} bytes are missing"
            )
    return Answer(answer.status, location, seconds, bytes(body))


def _basic(user: str) -> str:
    """Return the value of a header with user and password."""
    return "Basic " + b64encode(user.encode()).decode()

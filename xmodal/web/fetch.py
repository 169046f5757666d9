"""A request with its redirects: each of them goes to an allowed host."""

from __future__ import annotations

import time

from xmodal.errors import DataError
from xmodal.web.address import WebAddress
from xmodal.web.allowed_hosts import AllowedHosts
from xmodal.web.guarded_get import Answer, guarded_get

MAX_REDIRECTS = 5


def fetch(address: WebAddress, hosts: AllowedHosts, *, seconds: float, max_bytes: int) -> Answer:
    """Return the answer for an address after redirects.

    User and password of the address are sent to its own scheme, host and port only. ``seconds``:
    for all requests, without the resolution of names. Raises DataError if the address or a redirect
    is refused or the body is too long, RequestFailed without a complete answer.
    """
    end = time.monotonic() + seconds
    user, origin = address.user, address.origin
    for _ in range(MAX_REDIRECTS + 1):
        answer = guarded_get(
            address,
            hosts,
            user=user if address.origin == origin else None,
            seconds=end - time.monotonic(),
            max_bytes=max_bytes,
        )
        if answer.location is None:
            return answer
        try:
            address = address.join(answer.location)
        except DataError as error:
            raise DataError(f"a redirect is refused: {error}") from None
    raise DataError(f"more than {MAX_REDIRECTS} redirects")

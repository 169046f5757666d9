"""Download of pictures by http or https: repetitions, and limits for each host.

User and password of an address are never part of a message.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from xmodal.errors import DataError
from xmodal.web.address import WebAddress, parse_web_address, without_secrets
from xmodal.web.allowed_hosts import AllowedHosts
from xmodal.web.failures import RequestFailed
from xmodal.web.fetch import fetch

ATTEMPTS = 3
MAX_PAUSE = 30.0
"""Seconds before a repetition at most, also if the server asks for more by ``Retry-After``."""
BUSY = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
"""Statuses after which a request is repeated."""
REQUESTS_PER_HOST = 4
"""Requests to one host at the same time."""
MAX_FAILURES = 8
"""Failures in a row after which requests to a host are not repeated."""
MAX_HOSTS = 10_000
"""Hosts of which the state is kept."""


@dataclass(frozen=True)
class Download:
    """Downloads pictures; several threads may use it.

    ``hosts``: rules for hosts. ``max_bytes``, ``timeout`` (seconds, with redirects): limits of each
    picture. ``pause``: seconds before the first repetition of a failed request.
    """

    hosts: AllowedHosts = field(default_factory=AllowedHosts)
    max_bytes: int = 32 << 20
    timeout: float = 20.0
    pause: float = 1.0
    _states: _HostStates = field(default_factory=lambda: _HostStates(), repr=False, compare=False)

    def __call__(self, url: str, folder: Path) -> Path:
        """Download ``url`` into ``folder`` and return the file. Raises DataError on any failure.

        The message names the address without user, password and query.
        """
        try:
            content = self._repeat(parse_web_address(url))
        except DataError as error:
            raise DataError(f"{without_secrets(url)}: {error}") from None
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", url.partition("?")[0].rpartition("/")[2])[-80:]
        path = folder / f"{hashlib.blake2b(url.encode(), digest_size=8).hexdigest()}-{name}"
        path.write_bytes(content)
        return path

    def _repeat(self, address: WebAddress) -> bytes:
        """Return the picture at an address; repeat failed requests. Raises DataError."""
        state = self._states[address.host]
        attempts = ATTEMPTS if state.failures < MAX_FAILURES else 1
        for attempt in range(attempts):
            wait = self.pause * 2**attempt
            try:
                with state.slots:
                    answer = fetch(
                        address, self.hosts, seconds=self.timeout, max_bytes=self.max_bytes
                    )
            except RequestFailed as error:
                reason = str(error)
            else:
                if answer.status // 100 == 2:
                    state.failures = 0
                    return answer.body
                reason = f"the answer has status {answer.status}"
                if answer.status not in BUSY:
                    break
                wait = max(wait, answer.retry_after)
            state.failures += 1
            if attempt + 1 < attempts:
                time.sleep(min(wait, MAX_PAUSE))
        raise DataError(reason)


class _HostState:
    """Requests in progress to one host, and its failures since the last success."""

    def __init__(self) -> None:
        self.slots = threading.BoundedSemaphore(REQUESTS_PER_HOST)
        self.failures = 0


class _HostStates:
    """States of the hosts that were used last."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, _HostState] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, host: str) -> _HostState:
        with self._lock:
            state = self._states.setdefault(host, _HostState())
            self._states.move_to_end(host)
            if len(self._states) > MAX_HOSTS:
                self._states.popitem(last=False)
            return state

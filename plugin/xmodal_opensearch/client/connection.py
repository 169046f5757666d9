"""Connections to a node: every answer must belong to its request, and may come through a proxy.

Each request has an ``X-Opaque-Id`` of its own, which OpenSearch repeats in its answer. A proxy or a
connection that mixes up answers is detected by it. The answers are requested with gzip, whose
checksum detects changed bytes.
"""

from __future__ import annotations

import logging
import secrets
from itertools import count
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from opensearchpy import Urllib3HttpConnection

DEPRECATIONS = logging.getLogger("opensearch.deprecation")
"""Logger of the ``Warning`` headers of servers."""
OPAQUE_ID = "x-opaque-id"
ENVIRONMENT = "env"
"""Value of the option ``proxy``: the proxy of the environment variables."""


class ForeignAnswer(urllib3.exceptions.HTTPError):
    """An answer is not that of the request, or leads to another address."""


class Connection(Urllib3HttpConnection):
    """Connection of opensearch-py to one node; ``proxy``: see :func:`proxy_for`."""

    def __init__(self, *arguments: Any, proxy: str | None = None, **options: Any) -> None:
        self._proxy = proxy
        self._tls = options.get("ssl_context")
        self._workers = options.get("pool_maxsize", 1)
        super().__init__(*arguments, **options)

    def _raise_warnings(self, warning_headers: Any) -> None:
        """Log the ``Warning`` headers of an answer; opensearch-py makes Python warnings of them.

        A server sends them for what it deprecates, which differs between versions, and also for
        settings of the user's indexes.
        """
        for header in warning_headers or ():
            DEPRECATIONS.info("%s", header)

    def _create_urllib3_pool(self) -> None:
        super()._create_urllib3_pool()
        scheme = "https" if self.use_ssl else "http"
        proxy = proxy_for(self._proxy, scheme, self.hostname)
        origin = ""
        if proxy is not None:
            manager = _proxy_manager(proxy, self._tls, self._workers, self.timeout)
            self.pool = manager.connection_from_host(self.hostname, self.port, scheme)
            # A proxy reads the node's address from the URL; for TLS it opens a tunnel.
            origin = "" if self.use_ssl else self.host
        self.pool = _VerifiedPool(self.pool, origin)


def proxy_for(option: str | None, scheme: str, host: str) -> str | None:
    """Return the URL of the proxy, or None; ``option`` is a URL, "env" or None."""
    if option != ENVIRONMENT:
        return option
    proxy = getproxies().get(scheme)
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxy_manager(proxy: str, tls: Any, workers: int, timeout: Any) -> urllib3.ProxyManager:
    parts = urlsplit(proxy)
    user, at, place = parts.netloc.rpartition("@")
    headers = urllib3.make_headers(proxy_basic_auth=unquote(user)) if at else None
    options = {} if tls is None else {"ssl_context": tls}
    return urllib3.ProxyManager(
        urlunsplit(parts._replace(netloc=place)),
        proxy_headers=headers,
        maxsize=workers,
        timeout=timeout,
        **options,
    )


class _VerifiedPool:
    """A connection pool of urllib3 whose answers must repeat the id of their request.

    A server or proxy that never repeats it is accepted; one that did so once must go on.
    """

    def __init__(self, pool: Any, origin: str) -> None:
        self._pool, self._origin = pool, origin
        self._prefix, self._numbers = f"xmodal-{secrets.token_hex(4)}", count()
        self._repeats_ids = False

    def urlopen(
        self, method: str, url: str, body: Any, *, headers: dict[str, str], **options: Any
    ) -> Any:
        """Send a request. Raises ForeignAnswer besides the errors of urllib3."""
        sent = f"{self._prefix}-{next(self._numbers)}"
        answer = self._pool.urlopen(
            method,
            f"{self._origin}{url}",
            body,
            headers={**headers, OPAQUE_ID: sent},
            assert_same_host=False,
            redirect=False,
            **options,
        )
        found = answer.headers.get(OPAQUE_ID)
        if found == sent:
            self._repeats_ids = True
        elif found is not None or (self._repeats_ids and answer.status < 300):
            # The next answer of this connection may be that of this request.
            self._close_idle_connections()
            raise ForeignAnswer("it is the answer to another request")
        if 300 <= answer.status < 400:
            place = urlsplit(answer.headers.get("location", ""))
            target = urlunsplit((place.scheme, place.netloc.rpartition("@")[2], place.path, "", ""))
            raise ForeignAnswer(f"it leads to {target or 'no address'}: use that address")
        return answer

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _close_idle_connections(self) -> None:
        """Close the connections that no request uses; the pool opens them again when needed."""
        waiting = self._pool.pool
        for connection in list(waiting.queue) if waiting is not None else ():
            if connection is not None:
                connection.close()

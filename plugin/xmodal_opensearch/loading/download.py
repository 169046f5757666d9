"""Download of pictures by http or https, redirects included, limited in size and time."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from xmodal.errors import DataError
from xmodal_opensearch.client.http import SCHEMES, RequestFailed, request

MAX_REDIRECTS = 10


@dataclass(frozen=True)
class Download:
    """Downloads pictures; ``max_bytes`` and ``timeout`` (seconds) limit each download."""

    max_bytes: int = 32 << 20
    timeout: float = 20.0

    def __call__(self, url: str, folder: Path) -> Path:
        """Download ``url`` into ``folder`` and return the file. Raises DataError on any failure."""
        name = re.sub(r"[^\w.-]", "_", url.partition("?")[0].rpartition("/")[2])[-80:]
        path = folder / f"{hashlib.blake2b(url.encode(), digest_size=8).hexdigest()}-{name}"
        try:
            quoted = quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # spaces and letters beyond ASCII
            if urlsplit(quoted).scheme not in SCHEMES:
                raise DataError(f"{_without_secrets(url)} is no address of http or https")
            answer = request(
                "GET",
                quoted,
                timeout=self.timeout,
                max_bytes=self.max_bytes,
                max_redirects=MAX_REDIRECTS,
                use_proxies=True,
            )
        except (RequestFailed, ValueError) as error:
            raise DataError(f"{_without_secrets(url)}: {error}") from None
        if answer.status // 100 != 2:
            raise DataError(f"{_without_secrets(url)} answers {answer.status}")
        path.write_bytes(answer.body)
        return path


def _without_secrets(url: str) -> str:
    """Return an address without user, password and query, which may be secret."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}{parts.path}"
    except ValueError:
        return "invalid address"

"""Pictures by http: bounded in size and time, nothing but http, redirects checked alike."""

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
    """Fetches one picture into a folder; ``max_bytes`` and ``seconds`` bound each."""

    max_bytes: int = 32 << 20
    seconds: float = 20.0

    def __call__(self, url: str, folder: Path) -> Path:
        """The file that was fetched. Raises DataError in one line for anything else."""
        last = re.sub(r"[^\w.-]", "_", url.partition("?")[0].rpartition("/")[2])[-80:]
        path = folder / f"{hashlib.blake2b(url.encode(), digest_size=8).hexdigest()}-{last}"
        try:
            asked = quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # people write spaces and umlauts
            if urlsplit(asked).scheme not in SCHEMES:
                raise DataError(f"{_plain(url)} is no address of http or https")
            answer = request(
                "GET",
                asked,
                timeout=self.seconds,
                max_bytes=self.max_bytes,
                max_redirects=MAX_REDIRECTS,
                use_proxies=True,
            )
        except (RequestFailed, ValueError) as error:
            raise DataError(f"{_plain(url)}: {error}") from None
        if answer.status // 100 != 2:
            raise DataError(f"{_plain(url)} answers {answer.status}")
        path.write_bytes(answer.body)
        return path


def _plain(url: str) -> str:
    """The address without what may be secret in it."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}{parts.path}"
    except ValueError:
        return "an address that is none"

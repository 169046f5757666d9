"""Pictures by http: bounded in size and time, nothing but http, redirects checked alike."""

from __future__ import annotations

import hashlib
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, urlsplit

from xmodal.errors import DataError

SCHEMES = ("http", "https")


@dataclass(frozen=True)
class Download:
    """Fetches one picture into a folder; ``most_bytes`` and ``seconds`` bound each."""

    most_bytes: int = 32 << 20
    seconds: float = 20.0

    def __call__(self, url: str, folder: Path) -> Path:
        """The file that was fetched. Raises DataError in one line for anything else."""
        last = re.sub(r"[^\w.-]", "_", url.partition("?")[0].rpartition("/")[2])[-80:]
        path = folder / f"{hashlib.blake2b(url.encode(), digest_size=8).hexdigest()}-{last}"
        end = time.monotonic() + self.seconds
        try:
            asked = quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # people write spaces and umlauts
            with _OPENER.open(asked, timeout=self.seconds) as answer, open(path, "wb") as file:
                left = self.most_bytes
                while chunk := answer.read1(min(1 << 16, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        raise DataError(f"{_plain(url)} has more than {self.most_bytes:,} bytes")
                    if time.monotonic() > end:
                        raise DataError(f"{_plain(url)} took more than {self.seconds:g} seconds")
                    file.write(chunk)
                if answer.length:
                    raise DataError(f"{_plain(url)} was cut off, {answer.length:,} bytes lack")
        except urllib.error.HTTPError as error:
            error.close()
            raise DataError(f"{_plain(url)} answers {error.code}") from None
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise DataError(f"{_plain(url)}: {reason}") from None
        return path


class _OnlyHttp(urllib.request.HTTPRedirectHandler):
    """A redirect may not lead to a local file."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urlsplit(newurl).scheme not in SCHEMES:
            fp.close()
            raise DataError(f"{_plain(req.full_url)} leads to {urlsplit(newurl).scheme}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.OpenerDirector()
for _handler in (
    urllib.request.ProxyHandler(),
    urllib.request.HTTPHandler(),
    urllib.request.HTTPSHandler(),
    urllib.request.HTTPDefaultErrorHandler(),
    urllib.request.HTTPErrorProcessor(),
    _OnlyHttp(),
):
    _OPENER.add_handler(_handler)


def _plain(url: str) -> str:
    """The address without what may be secret in it."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}{parts.path}"
    except ValueError:
        return "an address that is none"

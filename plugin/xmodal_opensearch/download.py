"""Pictures by http: bounded in size and time, nothing but pictures, redirects checked alike."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from xmodal.errors import DataError

SCHEMES = ("http", "https")


@dataclass(frozen=True)
class Download:
    """Fetches one picture into a folder; ``most_bytes`` and ``seconds`` bound each."""

    most_bytes: int = 32 << 20
    seconds: float = 20.0

    def __call__(self, url: str, folder: Path) -> Path:
        """The file that was fetched. Raises DataError in one line for anything else."""
        path = folder / hashlib.blake2b(url.encode(), digest_size=16).hexdigest()
        try:
            with _OPENER.open(url, timeout=self.seconds) as answer, open(path, "wb") as file:
                left = self.most_bytes
                while chunk := answer.read(min(1 << 16, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        raise DataError(f"{_plain(url)} has more than {self.most_bytes:,} bytes")
                    file.write(chunk)
        except urllib.error.HTTPError as error:
            raise DataError(f"{_plain(url)} answers {error.code}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise DataError(f"{_plain(url)}: {error}") from None
        return path


class _OnlyHttp(urllib.request.HTTPRedirectHandler):
    """A redirect may not lead to a local file."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urlsplit(newurl).scheme not in SCHEMES:
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
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"

"""Whether a place to download from can be reached: asked once, quickly, before any library tries.

The libraries retry for half a minute and end in a page of traces; a person wants one line.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request

from xmodal.errors import ModelError

SECONDS = 4.0


def check_reachable(url: str, spec: str) -> None:
    """Raise ModelError if nothing answers at ``url`` within a few seconds."""
    host = url.split("/")[2] if "//" in url else url
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ModelError(_advice(spec, "HF_HUB_OFFLINE is set"))
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=SECONDS).close()  # proxies by environment, as usual
    except urllib.error.HTTPError as error:
        if error.code in (407, 502, 503, 504):  # a proxy that cannot or may not pass it on
            raise ModelError(_advice(spec, f"{host} answers {error.code}")) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ModelError(_advice(spec, f"{host} cannot be reached ({reason})")) from None


def _advice(spec: str, found: str) -> str:
    return (
        f"backbone {spec!r} is neither a local path nor downloaded before, and {found}: give "
        "the path of a local model, or --image-backbone small-cnn --text-backbone words"
    )

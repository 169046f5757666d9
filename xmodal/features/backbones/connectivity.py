"""Connectivity check of a download server, before a library downloads.

The libraries retry for half a minute and then print long tracebacks; the check takes at most
TIMEOUT_SECONDS and raises an error of one line.
"""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.request

from xmodal.errors import ModelError

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 4.0


def check_reachable(url: str, spec: str) -> None:
    """Raise ModelError if ``url`` cannot be reached, else log that it is downloaded.

    ``spec``: the backbone, for the message.
    """
    host = url.split("/")[2] if "//" in url else url
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ModelError(_message(spec, "HF_HUB_OFFLINE is set"))
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError as error:
        if error.code in (407, 502, 503, 504):  # errors of a proxy
            raise ModelError(_message(spec, f"{host} answers {error.code}")) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ModelError(_message(spec, f"{host} cannot be reached ({reason})")) from None
    log.info("downloading %s from %s", spec, host)


def _message(spec: str, reason: str) -> str:
    return (
        f"backbone {spec!r} is neither a local path nor in the download cache, and {reason}: name "
        "the path of a local model, or --image-backbone small-cnn --text-backbone words"
    )

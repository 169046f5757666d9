"""Connectivity check of a download server, before a library downloads.

The libraries retry for half a minute and then print long tracebacks; the check takes at most
TIMEOUT_SECONDS and raises an error of one line.
"""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable

from xmodal.errors import ModelError

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 4.0


def backbone_message(spec: str, reason: str) -> str:
    """Return the message about a backbone that cannot be downloaded."""
    return (
        f"backbone {spec!r} is neither a local path nor in the download cache, and {reason}: name "
        "the path of a local model, or --image-backbone small-cnn --text-backbone words"
    )


def check_reachable(
    url: str, spec: str, message: Callable[[str, str], str] = backbone_message
) -> None:
    """Raise ModelError if ``url`` cannot be reached, else log that it is downloaded.

    ``spec``: what is downloaded. ``message``: function of it and the reason that returns the
    message of the error.
    """
    host = url.split("/")[2] if "//" in url else url
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ModelError(message(spec, "HF_HUB_OFFLINE is set"))
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (407, 502, 503, 504):  # errors of a proxy
            raise ModelError(message(spec, f"{host} answers {error.code}")) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ModelError(message(spec, f"{host} cannot be reached ({reason})")) from None
    log.info("downloading %s from %s", spec, host)

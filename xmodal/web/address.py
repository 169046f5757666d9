"""Addresses of http and https, parsed once: the parts that are checked are those that are used."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from xmodal.errors import DataError
from xmodal.web.allowed_hosts import normalise_host

USUAL_PORTS = {"http": 80, "https": 443}
KEPT_CHARACTERS = "%/:=&?~+!$,;'@()*[]"
"""Characters of a path or query that are not quoted; spaces and letters beyond ASCII are."""


class WebAddress(NamedTuple):
    """A parsed address. ``path`` includes the query; ``user``: "user:password", or None."""

    scheme: str
    host: str
    port: int
    path: str
    user: str | None

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The host, in brackets if it is an IPv6 address, and the port unless it is the usual."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == USUAL_PORTS[self.scheme] else f"{host}:{self.port}"

    def without_user(self) -> str:
        """Return the address as text, without user and password."""
        return f"{self.scheme}://{self.authority}{self.path}"

    def join(self, location: str) -> WebAddress:
        """Return the address of a redirect. Raises DataError as :func:`parse_web_address`."""
        try:
            return parse_web_address(urljoin(self.without_user(), location))
        except ValueError:
            raise DataError("the address is not valid") from None


def parse_web_address(text: str) -> WebAddress:
    """Parse an address. Raises DataError, without any part of the address in the message."""
    try:
        parts = urlsplit(text)
        port = parts.port
        host = normalise_host(parts.hostname or "")
    except ValueError:  # the message of the error may contain the password
        raise DataError("the address is not valid") from None
    if parts.scheme not in USUAL_PORTS:
        raise DataError("the address has another scheme, expected http or https")
    if port == 0:
        raise DataError("the address has port 0")
    path = quote(parts.path or "/", safe=KEPT_CHARACTERS)
    if parts.query:
        path += "?" + quote(parts.query, safe=KEPT_CHARACTERS)
    user = None
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return WebAddress(parts.scheme, host, port or USUAL_PORTS[parts.scheme], path, user)


def is_address(text: str) -> bool:
    """Return whether a text is an address of http or https, by its start."""
    return text[:8].lower().startswith(("http://", "https://"))


def without_secrets(text: str) -> str:
    """Return an address for messages: without user, password, query and fragment.

    Everything before the last @ is removed, because a password may contain any character.
    """
    shown = re.sub(r"^([A-Za-z]+://|).*@", r"\1***@", text, flags=re.DOTALL)
    return re.split(r"[?#]", shown, maxsplit=1)[0]

"""Where an index is and who may ask: ``opensearch://host:9200/name?option=value``.

    opensearch://localhost:9200/photos             plain HTTP on this machine
    opensearch://search.example.org/photos         TLS, verified, everywhere else
    opensearch://a:9200,b:9200,c:9200/photos       several nodes of one cluster
    ...?strategy=knn     see index/strategies.py            ?tls=yes|no    instead of the rule above
    ...?ca=FILE          authority that signed the server   ?cert=FILE&key=FILE   client certificate
    ...?aws=eu-west-1    sign requests (SigV4)              ?service=es|aoss      for which service
    ...?shards=3&replicas=1   of an index that is made      ?natives=yes   Faiss' library is there

Secrets never stand in an address, which is printed and logged: a user is named by the environment,
XMODAL_OPENSEARCH_USER with XMODAL_OPENSEARCH_PASSWORD or XMODAL_OPENSEARCH_PASSWORD_FILE.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote

from xmodal.errors import ConfigError

SCHEME = "opensearch"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
Service = Literal["es", "aoss"]


@dataclass(frozen=True)
class Address:
    """A parsed address; ``str()`` gives it back, and holds nothing secret."""

    hosts: tuple[tuple[str, int], ...]
    index: str
    strategy: str | None = None
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    aws: str | None = None
    service: Service = "es"
    shards: int = 1
    replicas: int | None = None
    natives: bool = False
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.text

    @property
    def server(self) -> str:
        """The address without index and options, for messages."""
        return f"{SCHEME}://" + ",".join(f"{host}:{port}" for host, port in self.hosts)

    def named(self, index: str) -> Address:
        """The same server, another index."""
        head, mark, options = self.text.partition("?")
        stem = head.rpartition("/")[0] if self.index else head.rstrip("/")
        return replace(self, index=index, text=f"{stem}/{index}{mark}{options}")


def parse_address(text: str, *, index_needed: bool = True) -> Address:
    """The parts of an address. Raises ConfigError that says which part is wrong."""
    if "@" in text:
        raise ConfigError(
            f"{_hidden(text)} names a user: an address is printed and logged, so put them into the "
            "environment, XMODAL_OPENSEARCH_USER and XMODAL_OPENSEARCH_PASSWORD (an @ in the name "
            "of a file is written %40)"
        )
    match = re.fullmatch(rf"{SCHEME}://([^/?#]*)(?:/([^?#]*))?(?:\?([^#]*))?", text)
    if match is None:
        raise ConfigError(f"{text} is not an address, expected {_EXAMPLE}")
    where, index, options = match[1], unquote(match[2] or ""), match[3] or ""
    given = dict(parse_qsl(options, keep_blank_values=True))
    default_port = 443 if given.get("aws") else 9200
    hosts = tuple(_host(one, default_port, text) for one in where.split(","))
    if index_needed and not index:
        raise ConfigError(f"{text} names no index, expected {_EXAMPLE}")
    if index and (index != index.lower() or re.search(r"[\\/*?\"<>| ,#:]|^[-_+.]", index)):
        raise ConfigError(
            f"index name {index!r} is not usable, expected lower-case letters, digits, - and _ "
            "(it may not begin with - or _)"
        )
    unknown = sorted(set(given) - set(_OPTIONS))
    if unknown:
        raise ConfigError(
            f"{text.partition('?')[0]}: unknown option {unknown[0]!r}, expected some of "
            + ", ".join(_OPTIONS)
        )
    service = given.get("service", "es")
    if service not in ("es", "aoss"):
        raise ConfigError(f"{text}: service is {service!r}, expected es or aoss")
    if bool(given.get("cert")) != bool(given.get("key")):
        raise ConfigError(f"{text}: a client certificate needs both cert=FILE and key=FILE")
    for name in ("ca", "cert", "key"):
        if name in given and not Path(given[name]).is_file():
            raise ConfigError(f"{text}: {name} is {given[name]}, where there is no file")
    on_this_machine = all(host in LOOPBACK for host, _ in hosts)
    by_rule = not on_this_machine or bool({"ca", "cert", "aws"} & set(given))
    return Address(
        hosts,
        index,
        strategy=given.get("strategy", given.get("way")),
        tls=_yes(given, "tls", by_rule, text),
        ca=given.get("ca"),
        cert=given.get("cert"),
        key=given.get("key"),
        aws=given.get("aws"),
        service="aoss" if service == "aoss" else "es",
        shards=_number(given, "shards", 1, 1, text) or 1,
        replicas=_number(given, "replicas", 0, None, text),
        natives=_yes(given, "natives", False, text),
        text=text,
    )


def credentials(environment: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """User and password from the environment, if a user is named. Raises ConfigError."""
    user = environment.get("XMODAL_OPENSEARCH_USER")
    password = environment.get("XMODAL_OPENSEARCH_PASSWORD")
    file = environment.get("XMODAL_OPENSEARCH_PASSWORD_FILE")
    if user is None:
        return None
    if password is None and file is not None:
        try:
            password = Path(file).read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"XMODAL_OPENSEARCH_PASSWORD_FILE is {file}: {why}") from None
    if password is None:
        raise ConfigError(
            f"XMODAL_OPENSEARCH_USER is {user}, and no password is given: set "
            "XMODAL_OPENSEARCH_PASSWORD or XMODAL_OPENSEARCH_PASSWORD_FILE"
        )
    return user, password


_EXAMPLE = f"{SCHEME}://localhost:9200/photos"
_OPTIONS = (
    "strategy",
    "way",
    "tls",
    "ca",
    "cert",
    "key",
    "aws",
    "service",
    "shards",
    "replicas",
    "natives",
)


def _hidden(text: str) -> str:
    """The text without what may be a password."""
    return re.sub(r"(://|^).*@", r"\1***@", text, flags=re.DOTALL)


def _host(text: str, default_port: int, whole: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:\s]+)(?::(\d{1,5}))?", text)
    if match is None or not 0 < int(match[2] or default_port) < 65536:
        raise ConfigError(f"{whole} has no usable host in {text!r}, expected {_EXAMPLE}")
    return match[1], int(match[2] or default_port)


def _yes(given: Mapping[str, str], name: str, default: bool, text: str) -> bool:
    value = given.get(name, "yes" if default else "no")
    if value not in ("yes", "no"):
        raise ConfigError(f"{text}: {name} is {value!r}, expected yes or no")
    return value == "yes"


def _number(
    given: Mapping[str, str], name: str, least: int, default: int | None, text: str
) -> int | None:
    value = given.get(name)
    if value is not None and not (value.isdecimal() and int(value) >= least):
        raise ConfigError(f"{text}: {name} is {value!r}, expected a whole number from {least}")
    return default if value is None else int(value)

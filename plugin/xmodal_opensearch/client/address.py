"""Addresses of indexes: ``opensearch://host:9200/name?option=value``.

    opensearch://localhost:9200/photos             plain HTTP on the local machine
    opensearch://search.example.org/photos         verified TLS on any other host
    opensearch://a:9200,b:9200,c:9200/photos       several nodes of one cluster
    opensearch://example.org/search/photos         path of a reverse proxy before the index
    opensearch://localhost:9200/photos-*           several indexes, to read; also a,b and an alias
    opensearch://localhost:9200/far:photos         an index of the remote cluster far, to read
    ?strategy=knn               see index/strategies.py
    ?tls=yes|no                 overrides the default
    ?ca=FILE                    authority that signed the server's certificate
    ?cert=FILE&key=FILE         client certificate
    ?proxy=URL|env              forward proxy, or that of the environment (HTTPS_PROXY, NO_PROXY)
    ?aws=eu-west-1              sign requests (AWS SigV4) for a domain of the OpenSearch Service
    ?shards=3&replicas=1        used when an index is created
    ?natives=yes                the native library of Faiss is installed on the server

An address is printed and logged, so it contains no secrets. Credentials come from the environment:
XMODAL_OPENSEARCH_USER with XMODAL_OPENSEARCH_PASSWORD or XMODAL_OPENSEARCH_PASSWORD_FILE.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from xmodal.errors import ConfigError

SCHEME = "opensearch"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
SERVERLESS_DOMAIN = ".aoss.amazonaws.com"


@dataclass(frozen=True)
class Address:
    """A parsed address. ``str()`` returns the original text, which contains no secrets.

    ``prefix``: path of a reverse proxy before the server's paths, such as ``/search``.
    """

    hosts: tuple[tuple[str, int], ...]
    index: str
    strategy: str | None = None
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    prefix: str = ""
    proxy: str | None = None
    aws: str | None = None
    shards: int = 1
    replicas: int | None = None
    natives: bool = False
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.text

    @property
    def server(self) -> str:
        """The address without index and options, for messages."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{SCHEME}://{hosts}{self.prefix}"

    def with_index(self, index: str) -> Address:
        """Return the address of another index on the same server, with the same options."""
        head, mark, options = self.text.partition("?")
        stem = head.rpartition("/")[0] if self.index else head.rstrip("/")
        return replace(self, index=index, text=f"{stem}/{index}{mark}{options}")


def parse_address(text: str, *, index_needed: bool = True) -> Address:
    """Parse an address. Raises ConfigError that names the invalid part."""
    if "@" in text:
        raise ConfigError(
            f"{_redact(text)} contains a user, and addresses are printed and logged: set "
            "XMODAL_OPENSEARCH_USER and XMODAL_OPENSEARCH_PASSWORD in the environment instead (in "
            "the name of a file write %40 for @)"
        )
    match = re.fullmatch(rf"{SCHEME}://([^/?#]*)(?:/([^?#]*))?(?:\?([^#]*))?", text)
    if match is None:
        raise ConfigError(f"{text} is not an address, expected {_EXAMPLE}")
    path, _, last = (match[2] or "").rpartition("/")
    index = unquote(last)
    options = dict(parse_qsl(match[3] or "", keep_blank_values=True))
    default_port = 443 if options.get("aws") else 9200
    hosts = tuple(_parse_host(host, default_port, text) for host in match[1].split(","))
    if index or index_needed:
        _check_index_name(index, text)
    if path and not re.fullmatch(r"(/(?!\.)[\w.~%-]+)+", f"/{path}"):
        raise ConfigError(f"{text} has the path {path!r} before the index, expected names and /")
    _check_options(options, text)
    _check_not_serverless(hosts, options, text)
    is_local = all(host in LOOPBACK for host, _ in hosts)
    default_tls = not is_local or bool({"ca", "cert", "aws"} & set(options))
    return Address(
        hosts,
        index,
        strategy=options.get("strategy", options.get("way")),
        tls=_parse_bool(options, "tls", default_tls, text),
        ca=options.get("ca"),
        cert=options.get("cert"),
        key=options.get("key"),
        prefix=f"/{path}" if path else "",
        proxy=options.get("proxy"),
        aws=options.get("aws"),
        shards=_parse_int(options, "shards", 1, 1, text) or 1,
        replicas=_parse_int(options, "replicas", 0, None, text),
        natives=_parse_bool(options, "natives", False, text),
        text=text,
    )


def credentials(environment: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """Return user and password from the environment, or None if it contains no user.

    Raises ConfigError for a user without a password and for a password file that cannot be read.
    """
    user = environment.get("XMODAL_OPENSEARCH_USER")
    password = environment.get("XMODAL_OPENSEARCH_PASSWORD")
    file = environment.get("XMODAL_OPENSEARCH_PASSWORD_FILE")
    if user is None:
        return None
    if password is None and file is not None:
        try:
            password = Path(file).read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"XMODAL_OPENSEARCH_PASSWORD_FILE is {file}: {reason}") from None
    if password is None:
        raise ConfigError(
            f"XMODAL_OPENSEARCH_USER is {user} without a password: set "
            "XMODAL_OPENSEARCH_PASSWORD or XMODAL_OPENSEARCH_PASSWORD_FILE"
        )
    return user, password


_EXAMPLE = f"{SCHEME}://localhost:9200/photos"
_OPTIONS = (
    "strategy",
    "tls",
    "ca",
    "cert",
    "key",
    "proxy",
    "aws",
    "shards",
    "replicas",
    "natives",
)
_ALIASES = ("way", "service")  # the former name of strategy; service=es is the only one


def _redact(text: str) -> str:
    """Replace everything before the last @, which may contain a password."""
    return re.sub(r"(://|^).*@", r"\1***@", text, flags=re.DOTALL)


def _parse_host(host: str, default_port: int, text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:\s]+)(?::(\d{1,5}))?", host)
    if match is None or not 0 < int(match[2] or default_port) < 65536:
        raise ConfigError(f"{text} has no usable host in {host!r}, expected {_EXAMPLE}")
    return match[1], int(match[2] or default_port)


def _check_index_name(index: str, text: str) -> None:
    if not index:
        raise ConfigError(f"{text} names no index, expected {_EXAMPLE}")
    first, *others = index.split(",")
    if not all(map(_is_index_name, [first, *others])) or first.startswith("-"):
        raise ConfigError(
            f"index name {index!r} is not usable, expected lower-case letters, digits, - and _ "
            "(not - or _ at the beginning), or several such names with commas and *"
        )


def _is_index_name(name: str) -> bool:
    """Return whether a name is one of an index, a pattern, or with - the exclusion of one.

    It may be of a remote cluster, whose name is before a colon.
    """
    cluster, colon, index = name.removeprefix("-").rpartition(":")
    if colon and not re.fullmatch(r"[\w.*-]+", cluster):
        return False
    name = index
    return name == name.lower() and not re.search(r"[\\/?\"<>| #:]|^[-_+.]|^$", name)


def _check_options(options: Mapping[str, str], text: str) -> None:
    unknown = sorted(set(options) - {*_OPTIONS, *_ALIASES})
    if unknown:
        raise ConfigError(
            f"{text.partition('?')[0]}: unknown option {unknown[0]!r}, expected some of "
            + ", ".join(_OPTIONS)
        )
    proxy = options.get("proxy", "env")
    if proxy != "env" and not (
        urlsplit(proxy).scheme in ("http", "https") and urlsplit(proxy).hostname
    ):
        raise ConfigError(f"{text}: proxy is {proxy!r}, expected http://HOST:PORT or env")
    if bool(options.get("cert")) != bool(options.get("key")):
        raise ConfigError(f"{text}: a client certificate needs both cert=FILE and key=FILE")
    for name in ("ca", "cert", "key"):
        if name in options and not Path(options[name]).is_file():
            raise ConfigError(f"{text}: {name} is {options[name]!r}, expected an existing file")


def _check_not_serverless(
    hosts: tuple[tuple[str, int], ...], options: Mapping[str, str], text: str
) -> None:
    """Raise ConfigError for Amazon OpenSearch Serverless, which cannot hold an index of xmodal."""
    service = options.get("service", "es")
    if service == "aoss" or any(host.lower().endswith(SERVERLESS_DOMAIN) for host, _ in hosts):
        raise ConfigError(
            f"{text}: Amazon OpenSearch Serverless (aoss) has no refresh and refuses documents "
            "with ids of their own, which xmodal needs: use a domain of the OpenSearch Service"
        )
    if service != "es":
        raise ConfigError(f"{text}: service is {service!r}, expected es, the default")


def _parse_bool(options: Mapping[str, str], name: str, default: bool, text: str) -> bool:
    value = options.get(name, "yes" if default else "no")
    if value not in ("yes", "no"):
        raise ConfigError(f"{text}: {name} is {value!r}, expected yes or no")
    return value == "yes"


def _parse_int(
    options: Mapping[str, str], name: str, minimum: int, default: int | None, text: str
) -> int | None:
    value = options.get(name)
    if value is not None and not (value.isdecimal() and int(value) >= minimum):
        raise ConfigError(f"{text}: {name} is {value!r}, expected a whole number from {minimum}")
    return default if value is None else int(value)

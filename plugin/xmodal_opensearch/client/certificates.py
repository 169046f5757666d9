"""TLS of a connection: the authorities that are trusted, and the client's certificate."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

from opensearchpy import Urllib3HttpConnection
from urllib3.util import create_urllib3_context

from xmodal.errors import ConfigError
from xmodal_opensearch.client.address import Address

CERTIFICATE, KEY = "BEGIN CERTIFICATE", "PRIVATE KEY"
PROBE_TIMEOUT = 3.0  # seconds


def tls_context(address: Address) -> ssl.SSLContext:
    """Return the context of verified connections; raise ConfigError that names the bad file."""
    context: ssl.SSLContext = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    authorities = address.ca or Urllib3HttpConnection.default_ca_certs()
    if authorities is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(authorities)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"ca is {authorities}, expected certificates in PEM format ({_reason(error)})"
            ) from None
    if address.cert is not None and address.key is not None:
        _load_client_certificate(context, address.cert, address.key)
    return context


def _load_client_certificate(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Load certificate and key of the client; raise ConfigError that names the bad file."""
    texts = {"cert": _read("cert", cert), "key": _read("key", key)}
    if CERTIFICATE not in texts["cert"]:
        swapped = ": exchange cert and key" if KEY in texts["cert"] else ""
        raise ConfigError(f"cert is {cert}, expected a certificate in PEM format{swapped}")
    if KEY not in texts["key"]:
        swapped = ": it is a certificate" if CERTIFICATE in texts["key"] else ""
        raise ConfigError(f"key is {key}, expected a private key in PEM format{swapped}")
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except _Encrypted:
        raise ConfigError(
            f"key is {key}, which is encrypted, expected a key without a password: decrypt it "
            "with openssl pkey -in FILE -out NEW_FILE"
        ) from None
    except (OSError, ValueError) as error:
        reason = _reason(error)
        if "KEY_VALUES_MISMATCH" in reason or "KEY_TYPE_MISMATCH" in reason:
            raise ConfigError(
                f"key is {key}, which is not the key of the certificate {cert}"
            ) from None
        raise ConfigError(
            f"the client certificate {cert} with the key {key} cannot be used ({reason})"
        ) from None


class _Encrypted(Exception):
    """A key has a password."""


def _refuse_password() -> str:
    raise _Encrypted


def _read(option: str, file: str) -> str:
    try:
        return Path(file).read_text(encoding="latin-1")
    except OSError as error:
        raise ConfigError(f"{option} is {file}: {error.strerror}") from None


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())


def answers_with_tls(hosts: Iterable[tuple[str, int]]) -> bool:
    """Return whether the first host that accepts a connection uses TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for host, port in hosts:
        try:
            with socket.create_connection((host.strip("[]"), port), PROBE_TIMEOUT) as plain:
                try:
                    context.wrap_socket(plain).close()
                except ssl.SSLError as error:
                    return "ALERT" in str(error)  # such as one that asks for a certificate
                return True
        except OSError:
            continue
    return False

"""TLS of the service: certificate and key, checked at start and read again when they change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from xmodal.errors import ConfigError

log = logging.getLogger(__name__)


class TlsFiles:
    """A certificate with its chain and a key without password, in PEM files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read the files. Raises ConfigError."""
        self._certificate, self._key = certificate, key
        for option, file in (("--tls-cert", certificate), ("--tls-key", key)):
            try:
                file.read_bytes()
            except OSError as error:
                raise ConfigError(f"{option} {file} cannot be read: {error.strerror}") from None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(self.context)
        self._state = self._files_state()

    def reload(self) -> None:
        """Use changed files for new connections; log and ignore files that are not valid."""
        state = self._files_state()
        if state is None or state == self._state:
            return
        self._state = state
        try:
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # a pair that is half written fails
            self._load(self.context)
        except ConfigError as error:
            log.warning("%s; the certificate of before stays in use", error)
        else:
            log.warning("read the TLS certificate again")

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # Without a password callback, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ConfigError(
                f"--tls-cert {self._certificate} and --tls-key {self._key} are not a certificate "
                f"and its key in PEM, without password: {reason}"
            ) from None

    def _files_state(self) -> tuple[tuple[int, int, int], ...] | None:
        try:
            found = [file.stat() for file in (self._certificate, self._key)]
        except OSError:
            return None
        return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in found)

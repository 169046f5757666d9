"""Bearer tokens of clients: token files, roles, and reloading of files that change."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from xmodal.errors import ConfigError
from xmodal.operating_system import can_others_read

log = logging.getLogger(__name__)

Role = Literal["search", "write"]
ROLES: frozenset[Role] = frozenset(get_args(Role))
MIN_LENGTH = 16
MAX_NAME = 64
MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Token:
    """The secret of one client.

    name: name of the client in logs.
    roles: search allows searches, documents, pictures and filters; write also allows encoding.
    """

    name: str
    secret: str = field(repr=False)
    roles: frozenset[Role] = ROLES


class TokenCheck:
    """Finds the token of a request; reads token files again when they change."""

    def __init__(self, tokens: Sequence[Token], files: Sequence[Path] = ()) -> None:
        self._fixed, self._files = tuple(tokens), tuple(files)
        self._states = [_state(file) for file in self._files]
        self._tokens = self._fixed + tuple(read_token_files(self._files))

    @property
    def required(self) -> bool:
        """Whether requests need a token."""
        return bool(self._tokens)

    def find(self, authorization: str) -> Token | None:
        """The token in a header ``Bearer TOKEN``, or None. Compares with each in constant time."""
        scheme, _, secret = authorization.partition(" ")
        sent = secret.strip().encode("utf-8", "surrogateescape")
        found = None
        for token in self._tokens:
            if hmac.compare_digest(sent, token.secret.encode()):
                found = token
        return found if scheme.lower() == "bearer" else None

    async def watch(self, interval: float) -> None:
        """Read the files again whenever they change, until cancelled."""
        while self._files:
            await asyncio.sleep(interval)
            await asyncio.to_thread(self.reload)

    def reload(self) -> None:
        """Read changed files again. While a file is not valid, the tokens of before are kept."""
        states = [_state(file) for file in self._files]
        if states == self._states:
            return
        self._states = states
        try:
            self._tokens = self._fixed + tuple(read_token_files(self._files))
        except ConfigError as error:
            log.warning("%s; the tokens of before stay valid", error)
        else:
            log.warning("read the token files again: %d tokens", len(self._tokens))


def read_token_file(file: Path) -> list[Token]:
    """The tokens of a file: one secret, or lines ``NAME ROLE[,ROLE] SECRET``.

    Empty lines and lines that begin with # are ignored. Raises ConfigError.
    """
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            data = opened.read(MAX_FILE_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"--token-file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--token-file {file}: expected ASCII text") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"--token-file {file}: more than {MAX_FILE_BYTES:,} bytes")
    _check_permissions(file, status)
    lines = [line.split() for line in text.splitlines()]
    lines = [words for words in lines if words and not words[0].startswith("#")]
    if len(lines) == 1 and len(lines[0]) == 1:
        check_secret(lines[0][0], f"--token-file {file}")
        return [Token("default", lines[0][0])]
    tokens = [_parse_line(file, words) for words in lines]
    if not tokens:
        raise ConfigError(f"--token-file {file} has no token")
    return tokens


def _parse_line(file: Path, words: Sequence[str]) -> Token:
    if len(words) != 3:
        raise ConfigError(
            f"--token-file {file}: expected one secret without spaces, or lines of "
            f"NAME ROLE[,ROLE] SECRET"
        )
    name, roles, secret = words
    if len(name) > MAX_NAME or not name.isprintable():
        raise ConfigError(f"--token-file {file}: a name has more than {MAX_NAME} characters")
    check_secret(secret, f"--token-file {file}")
    given = frozenset(roles.split(","))
    unknown = given - ROLES
    if unknown:
        raise ConfigError(
            f"--token-file {file}: role {min(unknown)[:40]!r} of {name!r}, "
            f"expected {', '.join(sorted(ROLES))}"
        )
    return Token(name, secret, cast(frozenset[Role], given))


def check_secret(secret: str, source: str) -> None:
    """Raise ConfigError unless a secret is long enough and can be sent in a header."""
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigError(f"{source}: expected ASCII characters, no spaces")
    if len(secret) < MIN_LENGTH:
        raise ConfigError(f"{source}: expected {MIN_LENGTH} or more characters")


def _check_permissions(file: Path, status: os.stat_result) -> None:
    """Raise ConfigError for a file that other users of the machine can read.

    A group may read a file of another owner: Kubernetes mounts secrets as root, and a service that
    is not root reads them by its group (fsGroup).
    """
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode) and can_others_read(status, shared=0o040):
        raise ConfigError(
            f"--token-file {file} has the permissions {mode:04o}, expected 0600: chmod 600 {file} "
            "(a secret of Kubernetes: defaultMode: 0400, with fsGroup 0440)"
        )


def read_token_files(files: Sequence[Path]) -> list[Token]:
    """The tokens of all files. Raises ConfigError, also for a repeated name or secret."""
    tokens = [token for file in files for token in read_token_file(file)]
    for names, what in (([t.name for t in tokens], "name"), ([t.secret for t in tokens], "secret")):
        repeated = {one for one in names if names.count(one) > 1}
        if repeated:
            shown = f" {min(repeated)!r}" if what == "name" else ""
            raise ConfigError(f"--token-file: the {what}{shown} is repeated, expected it once")
    return tokens


def _state(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode

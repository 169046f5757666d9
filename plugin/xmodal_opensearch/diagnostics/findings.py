"""A finding of ``doctor``, and what the checks have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from shlex import quote
from typing import Any, NamedTuple

from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.rest.curl import Curl


class Finding(NamedTuple):
    """What was found, what it means, and the command that repairs it.

    ``kind``: name of the finding for programs. ``is_wrong``: False for what only should be known.
    ``fix``: the repair, where it is safe without the user's decision.
    """

    kind: str
    found: str
    meaning: str
    repair: str
    is_wrong: bool = True
    fix: Callable[[], object] | None = None

    def __str__(self) -> str:
        return f"{self.found}: {self.meaning}; {self.repair}"


@dataclass
class Subject:
    """The inspected address, and each index behind it.

    ``indexes``: aliases, mappings and flat settings by name of the concrete index.
    """

    server: Server
    address: Address
    indexes: Mapping[str, Mapping[str, Any]]
    curl: Curl = field(init=False)

    def __post_init__(self) -> None:
        self.curl = Curl(self.address, os.environ)

    def command(self, name: str, *options: str) -> str:
        """Return a command of ``xmodal-opensearch`` for this address."""
        return " ".join(("xmodal-opensearch", name, quote(str(self.address)), *options))

    @property
    def repair_command(self) -> str:
        """The command of the safe repairs."""
        return self.command("doctor", "--repair")

    def set_command(self, index: str, settings: Mapping[str, Any]) -> str:
        """Return the command that changes settings of an index."""
        return self.curl.command("PUT", f"/{index}/_settings", dict(settings))

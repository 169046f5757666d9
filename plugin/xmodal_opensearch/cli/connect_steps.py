"""Steps that both ways of ``xmodal-opensearch connect`` share: the index, settings, output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from xmodal.cli.output import info, print_json, print_line
from xmodal.encoders.text_tower import TextTower
from xmodal.errors import ConfigError, IndexMissing
from xmodal.index.validation import check_identity
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.rest import cluster_settings, models
from xmodal_opensearch.rest.cluster_settings import MissingSetting
from xmodal_opensearch.rest.curl import Curl
from xmodal_opensearch.rest.models import ResourceChange
from xmodal_opensearch.rest.service_probe import ServiceInfo


def open_index(server: Server, address: Address) -> OpenSearchIndex:
    """Open the index. Raises IndexMissing, and ConfigError if its codes are stored as words."""
    try:
        index = OpenSearchIndex(server, address, bits=None, fingerprint=None)
    except IndexMissing as error:
        raise IndexMissing(
            f"{error}: create it with xmodal index DATA --model M --index {address}, or empty with "
            f"xmodal-opensearch create {address} --model M"
        ) from None
    if not index.handle.layout.is_vector:
        raise ConfigError(
            f"{address} stores its codes as 64-bit words, which ml-commons cannot write: load it "
            "with another strategy"
        )
    return index


def reopen(
    server: Server, index: OpenSearchIndex, encoder: ServiceInfo | TextTower
) -> OpenSearchIndex:
    """Open the same index for an encoder. Raises IndexMismatch."""
    address = index.handle.address
    check_identity(
        str(address),
        bits=index.bits,
        fingerprint=index.fingerprint,
        expected_bits=encoder.bits,
        expected_fingerprint=encoder.fingerprint,
    )
    return OpenSearchIndex(server, address, bits=encoder.bits, fingerprint=encoder.fingerprint)


def not_allowed(
    prefix: str, missing: list[MissingSetting], doing: str, curl: Curl
) -> click.ClickException:
    """Return the error of missing settings: a line each, and the command that changes them.

    ``doing``: what ml-commons may not do, such as "call http://127.0.0.1:8000".
    """
    body = cluster_settings.settings_body(missing)
    command = curl.command("PUT", "/_cluster/settings", body)
    text = cluster_settings.explanation(missing, doing, command)
    return click.ClickException(prefix + text)


def allow_settings(
    server: Server, missing: list[MissingSetting], doing: str, curl: Curl, *, allow: bool
) -> None:
    """Change the missing cluster settings if ``allow``. Raises :func:`not_allowed` otherwise."""
    if missing and not allow:
        raise not_allowed("", missing, doing, curl)
    if missing:
        models.change_settings(server, missing)
        info("changed cluster settings: " + ", ".join(one.setting for one in missing))


def show(
    result: dict[str, Any],
    changes: Sequence[ResourceChange],
    commands: Sequence[tuple[str, str]],
    *,
    as_json: bool,
) -> None:
    """Print the changes of ``connect`` and commands to try, or ``result`` with them as JSON."""
    if as_json:
        result["steps"] = to_json(changes)
        result["try"] = [{"what": title, "curl": command} for title, command in commands]
        print_json(result)
        return
    print_changes(changes)
    for title, command in commands:
        print_line(f"\n# {title}\n{command}")


def to_json(changes: Sequence[ResourceChange]) -> list[dict[str, str | None]]:
    return [
        {"what": one.kind, "name": one.name, "done": one.change, "id": one.id} for one in changes
    ]


def print_changes(changes: Sequence[ResourceChange]) -> None:
    """Print one line for each change, in columns."""
    width = max((len(one.kind) for one in changes), default=0)
    for one in changes:
        suffix = f"  (id {one.id})" if one.id else ""
        print_line(f"{one.change:<9}  {one.kind:<{width}}  {one.name}{suffix}")

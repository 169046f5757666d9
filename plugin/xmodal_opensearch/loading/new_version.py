"""A new version of an index that people go on searching: filled unseen, swapped in at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xmodal.errors import ConfigError, IndexMismatch
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.aliases import describe, is_version, make_version, move_alias, versions_of
from xmodal_opensearch.index.capabilities import probe
from xmodal_opensearch.index.mapping import RESERVED_FIELDS, Layout
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.index.strategies import choose_strategy

KEY = "xmodal_filled_from"
"""In ``_meta`` of the mapping while a version is unfinished: what it is filled from."""


def open_next_version(
    server: Server, address: Address, bits: int, fingerprint: str | None, source: str
) -> OpenSearchIndex:
    """The version to fill: one that a killed load from ``source`` left behind, else a new one.

    The user's own fields are mapped as in the version that is searched now, and codes lie as there
    unless the address names a way. Raises ConfigError for a name that is no alias of ours.
    """
    found = describe(server, address.index)
    fields: dict[str, Any] = {}
    current = ""
    layout: Layout | None = None
    if found is not None:
        current, content = found
        if not is_version(address.index, current):
            raise ConfigError(
                f"{address.index} is an index, not an alias that could be moved to a new version: "
                "load into another name"
            )
        if mapping.is_enriched(content["mappings"]):
            raise ConfigError(
                f"{address.index} holds documents of your own, to which codes were added: run "
                "xmodal-opensearch enrich for a new model, or load into another name"
            )
        fields = user_fields(content["mappings"])
        if address.strategy is None:
            held, _ = mapping.read_meta(current, content["mappings"])
            layout = mapping.read_layout(current, held, content["mappings"], content["settings"])
    if layout is None:
        layout = choose_strategy(address.strategy, probe(server), None, address.natives).makes
    for name, seen in versions_of(server, address.index).items():
        if not seen and name > current and _fits(server, name, bits, fingerprint, layout, source):
            return OpenSearchIndex(server, address.named(name), bits=bits, fingerprint=fingerprint)
    name = make_version(server, address, bits, fingerprint, layout, alias=None, fields=fields)
    index = OpenSearchIndex(server, address.named(name), bits=bits, fingerprint=fingerprint)
    index.handle.write_meta({KEY: source})
    return index


def publish(index: OpenSearchIndex, alias: str, *, delete_old: bool) -> list[str]:
    """Let the alias stand for this version; return the versions for which it stood."""
    index.handle.write_meta({KEY: None})
    old = move_alias(index.handle.server, alias, index.handle.name)
    if delete_old and old:
        index.handle.server.request("DELETE", f"/{','.join(old)}", doing="deleting old versions")
    return old


def user_fields(mappings: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping of the fields that are not ours."""
    return {k: v for k, v in mappings.get("properties", {}).items() if k not in RESERVED_FIELDS}


def _fits(
    server: Server, name: str, bits: int, fingerprint: str | None, layout: Layout, source: str
) -> bool:
    found = describe(server, name)
    if found is None:
        return False
    try:
        content = found[1]
        same = mapping.read_meta(name, content["mappings"]) == (bits, fingerprint)
        same = same and content["mappings"]["_meta"].get(KEY) == source
        there = mapping.read_layout(name, bits, content["mappings"], content["settings"])
        return same and there == layout
    except IndexMismatch:
        return False

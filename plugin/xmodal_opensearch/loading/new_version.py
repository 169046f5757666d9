"""New version of an index: loaded while the old one is searched, then published atomically."""

from __future__ import annotations

from typing import Any

from xmodal.errors import ConfigError, IndexMismatch
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.aliases import describe, is_version, move_alias, versions_of
from xmodal_opensearch.index.bit_order_check import store_self_test
from xmodal_opensearch.index.capabilities import probe
from xmodal_opensearch.index.creation import make_version
from xmodal_opensearch.index.mapping import Layout
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.index.strategies import choose_strategy

KEY = "xmodal_filled_from"
"""Key in ``_meta`` of the mapping of an unfinished version: the source of its documents."""


def open_next_version(
    server: Server, address: Address, bits: int, fingerprint: str | None, source: str
) -> OpenSearchIndex:
    """Open the unfinished version that a killed load from ``source`` left, or create a new one.

    The user's fields are mapped as in the current version, and so are codes unless the address has
    a strategy. Raises ConfigError for an index that is no version behind an alias, or is enriched.
    """
    found = describe(server, address.index)
    fields: dict[str, Any] = {}
    current = ""
    layout: Layout | None = None
    if found is not None:
        current, content = found
        if not is_version(address.index, current):
            raise ConfigError(
                f"{address.index} is an index, expected an alias of a version made by xmodal: "
                "load into another name"
            )
        if mapping.is_enriched(content["mappings"]):
            raise ConfigError(
                f"{address.index} holds your own documents, to which codes were added: run "
                "xmodal-opensearch enrich for a new model, or load into another name"
            )
        fields = mapping.user_fields(content["mappings"].get("properties", {}))
        if address.strategy is None:
            old_bits, _ = mapping.read_meta(current, content["mappings"])
            layout = mapping.read_layout(
                current, old_bits, content["mappings"], content["settings"]
            )
    if layout is None:
        layout = choose_strategy(address.strategy, probe(server), None, address.natives).makes
    for name, seen in versions_of(server, address.index).items():
        if not seen and name > current and _fits(server, name, bits, fingerprint, layout, source):
            store_self_test(server, name, bits, layout)  # its creation may have been killed
            break
    else:
        name = make_version(
            server,
            address,
            bits,
            fingerprint,
            layout,
            alias=None,
            fields=fields,
            meta={KEY: source},
        )
    return OpenSearchIndex(server, address.with_index(name), bits=bits, fingerprint=fingerprint)


def publish(index: OpenSearchIndex, alias: str, *, delete_old: bool) -> list[str]:
    """Move the alias to this version; return the versions to which it pointed."""
    index.handle.write_meta({KEY: None})
    old = move_alias(index.handle.server, alias, index.handle.name)
    if delete_old and old:
        index.handle.server.request("DELETE", f"/{','.join(old)}", doing="deleting old versions")
    return old


def _fits(
    server: Server, name: str, bits: int, fingerprint: str | None, layout: Layout, source: str
) -> bool:
    """Return whether a version is unfinished and has this source, encoder and layout."""
    found = describe(server, name)
    if found is None:
        return False
    try:
        mappings, settings = found[1]["mappings"], found[1]["settings"]
        return (
            mapping.read_meta(name, mappings) == (bits, fingerprint)
            and mappings["_meta"].get(KEY) == source
            and mapping.read_layout(name, bits, mappings, settings) == layout
        )
    except IndexMismatch:
        return False

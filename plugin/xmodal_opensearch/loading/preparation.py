"""Preparation of an existing index for codes, and its undoing.

Three requests prepare an index: the fields for codes are added to the mapping, the self-test
document is stored, and ``_meta.xmodal`` of the mapping is written, from which on the index is one
with codes. A preparation that ended between them is completed by the next.

The server cannot remove fields from a mapping: those for codes stay after the undoing, and are used
again by a later preparation for codes of the same width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xmodal.errors import ConfigError, IndexMismatch, IndexMissing
from xmodal.modality import MODALITIES
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.aliases import describe
from xmodal_opensearch.index.bit_order_check import read_self_test, store_self_test
from xmodal_opensearch.index.capabilities import probe
from xmodal_opensearch.index.mapping import LAYOUTS, Layout, field_of, nested_path, vector_field
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.loading.document_sources import Source
from xmodal_opensearch.loading.selection import check_fields

BLOCKS = ("read_only", "read_only_allow_delete", "write", "metadata")


def prepare(
    server: Server,
    address: Address,
    bits: int,
    fingerprint: str,
    source: Source | None = None,
    *,
    replace: bool = False,
) -> OpenSearchIndex:
    """Add the fields for codes to an existing index, unless it has them, and open it.

    From then on searches return documents of this encoder only. ``replace``: an index with codes of
    another encoder is changed to this one. Raises IndexMissing; IndexMismatch if codes cannot be
    added; ConfigError, before any change, if a field of ``source`` is missing or writing is
    blocked.
    """
    name, content = describe_existing(server, address)
    mappings = content["mappings"]
    if source is not None:
        check_fields(str(address), mapping.field_types(mappings), source.fields)
    stored = read_identity(address, name, mappings)
    layout = _layout(server, address, name, bits, content)
    if stored is not None:
        check_width(address, stored[0], bits)
        if stored[1] != fingerprint and not replace:
            raise IndexMismatch(
                f"{address} has codes of encoder {stored[1]}, expected {fingerprint}: use that "
                "encoder, or replace its codes with --replace"
            )
    _check_blocks(name, content["settings"])
    _add_fields(server, name, mappings, bits, layout)
    if read_self_test(server, name) is None:
        store_self_test(server, name, bits, layout)
    if stored != (bits, fingerprint):
        _write_meta(server, name, mappings, bits, fingerprint, layout)
        store_self_test(server, name, bits, layout)  # again, with the encoder
    return OpenSearchIndex(server, address, bits=bits, fingerprint=fingerprint)


def describe_existing(server: Server, address: Address) -> tuple[str, dict[str, Any]]:
    """Return name, mapping and settings of an index of the user's. Raises IndexMissing."""
    found = describe(server, address.index)
    if found is None:
        raise IndexMissing(
            f"no index {address.index} at {address.server}, expected one with documents: for new "
            "documents use xmodal index or xmodal-opensearch load"
        )
    return found


def read_identity(
    address: Address, name: str, mappings: Mapping[str, Any]
) -> tuple[int, str | None] | None:
    """Return width and encoder of the codes of an enriched index, None without codes.

    Raises IndexMismatch for an index that xmodal created.
    """
    if "xmodal" not in mappings.get("_meta", {}):
        return None
    if not mapping.is_enriched(mappings):
        raise IndexMismatch(
            f"{address} was created by xmodal, expected an index of your own documents: use "
            "xmodal index or xmodal-opensearch load"
        )
    return mapping.read_meta(name, mappings)


def check_width(address: Address, stored: int, bits: int) -> None:
    """Raise IndexMismatch for codes of another width."""
    if stored != bits:
        raise IndexMismatch(
            f"{address} has fields for codes of {stored} bits, expected {bits}, the width of this "
            "encoder: a field's width is fixed, so remove the codes with xmodal-opensearch enrich "
            "--undo, reindex into a new index, and enrich that"
        )


def remove_preparation(
    server: Server, name: str, meta: Mapping[str, Any], guard: str | None
) -> None:
    """Remove ``_meta.xmodal``, the self-test document and the alias ``guard`` of writes."""
    kept = {key: value for key, value in meta.items() if not key.startswith("xmodal")}
    doing = "removing the description of codes"
    server.request("PUT", f"/{name}/_mapping", {"_meta": kept}, doing=doing)
    server.request(
        "POST",
        f"/{name}/_delete_by_query",
        {"query": {"ids": {"values": [mapping.SELF_TEST_ID]}}},
        doing="deleting the self-test",
        refresh="true",
    )
    if guard is not None:
        body = {"actions": [{"remove": {"index": name, "alias": guard}}]}
        server.request("POST", "/_aliases", body, doing="removing an alias")


def _add_fields(
    server: Server, name: str, mappings: Mapping[str, Any], bits: int, layout: Layout
) -> None:
    """Add the fields for codes to the mapping, unless it has all of them."""
    types = mapping.field_types(mappings)
    if mapping.INCOMPLETE in types and field_of("text") in mappings.get("properties", {}):
        return
    body = {"properties": mapping.enriched_properties(bits, layout)}
    server.request("PUT", f"/{name}/_mapping", body, doing="adding the fields for codes")


def _write_meta(
    server: Server,
    name: str,
    mappings: Mapping[str, Any],
    bits: int,
    fingerprint: str,
    layout: Layout,
) -> None:
    """Write or change the description of the codes."""
    meta = mappings.get("_meta", {})
    if "xmodal" in meta:
        new = mapping.with_meta(meta, encoder=fingerprint)
    else:
        new = {**meta, **mapping.build_meta(bits, fingerprint, enriched=True)}
        if _has_vectors(mappings, bits, layout):
            new = mapping.with_meta(new, dim=bits)
    server.request("PUT", f"/{name}/_mapping", {"_meta": new}, doing="naming the encoder")


def _has_vectors(mappings: Mapping[str, Any], bits: int, layout: Layout) -> bool:
    """Return whether fields for vectors are left of an earlier preparation."""
    fields = [mappings.get("properties", {}).get(vector_field(m), {}) for m in MODALITIES]
    return all(
        str(field.get(key)).lower() == str(value)  # the server returns data_type in upper case
        for key, value in layout.vector_mapping(bits).items()
        for field in fields
    )


def _layout(
    server: Server, address: Address, name: str, bits: int, content: Mapping[str, Any]
) -> Layout:
    """Return the layout of the fields for codes: of those that exist, else one that can be added.

    The setting ``index.knn`` of an existing index cannot be changed. Raises IndexMismatch.
    """
    mappings, settings = content["mappings"], content["settings"]
    _check_source(name, mappings)
    if _has_fields(mappings):
        meta = mappings.get("_meta", {})
        if "xmodal" in meta:
            check_width(address, mapping.read_meta(name, mappings)[0], bits)
        return mapping.read_layout(name, bits, mappings, settings)
    can = probe(server)
    if address.strategy == "long" or not can.knn:
        return LAYOUTS["long"]
    if str(settings.get("index.knn")) == "true":
        return LAYOUTS["lucene-hnsw"]
    return LAYOUTS["flat"]


def _has_fields(mappings: Mapping[str, Any]) -> bool:
    """Return whether the mapping has the fields for codes. Raises IndexMismatch for other fields.

    A vector field of the user's own is allowed: the documents then have codes without vectors.
    """
    free = {vector_field(m) for m in MODALITIES} | {nested_path(m) for m in MODALITIES}
    needed = set(mapping.RESERVED_FIELDS) - free
    reserved = sorted(needed & mappings.get("properties", {}).keys())
    types = mapping.field_types(mappings)
    own = types.get(mapping.ID) == types.get(mapping.ENCODER) == "keyword"
    if reserved and not (set(reserved) == needed and own):
        raise IndexMismatch(
            f"the index has fields with the reserved names {', '.join(reserved)}: rename them"
        )
    return bool(reserved)


def _check_source(name: str, mappings: Mapping[str, Any]) -> None:
    """Raise IndexMismatch for an index that does not store complete documents."""
    stored = mappings.get("_source", {})
    if stored.get("enabled") is False or stored.get("excludes") or stored.get("includes"):
        raise IndexMismatch(
            f"index {name} does not store complete documents (_source is {dict(stored)}), so an "
            "update would lose fields: reindex it with complete documents"
        )


def _check_blocks(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for an index that does not accept changes."""
    for block in BLOCKS:
        if str(settings.get(f"index.blocks.{block}")) == "true":
            raise ConfigError(
                f"index {name} has the block index.blocks.{block}, expected none: remove it with "
                f'PUT /{name}/_settings {{"index.blocks.{block}": null}}'
            )

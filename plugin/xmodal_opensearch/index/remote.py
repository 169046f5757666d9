"""Indexes of remote clusters (``cluster:index``), described by what a search of them returns.

A cluster does not return mappings and settings of indexes of another one. Fields are read by
``_field_caps``; width and encoder of the codes are those of the self-test document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xmodal.errors import IndexMismatch
from xmodal.index.words import VERSION as WORDS_VERSION
from xmodal.modality import MODALITIES
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.mapping import LAYOUTS

REPAIR = "run xmodal-opensearch doctor --repair on its own cluster"


def is_remote(name: str) -> bool:
    """Return whether a name is of an index, or of indexes, of a remote cluster."""
    return ":" in name


def describe_remote(server: Server, name: str) -> dict[str, dict[str, Any]]:
    """Return the description of each remote index that ``name`` covers, as of local indexes.

    Vectors are not part of it: searches of remote indexes are by codes alone. Raises IndexMismatch
    for an index without codes, or whose encoder is not known.
    """
    found = _field_types(server, name, "xmodal.id")
    return {index: _describe(server, index) for index in sorted(found)}


def _describe(server: Server, name: str) -> dict[str, Any]:
    types = _field_types(server, name, "*").get(name, {})
    body = {"size": 1, "query": {"ids": {"values": [mapping.SELF_TEST_ID]}}}
    answer = server.search(f"/{name}/_search", body, doing=f"opening {name}")
    hits = answer["hits"]["hits"]
    stored = hits[0]["_source"] if hits else {}
    code = stored.get(mapping.SELF_TEST_FIELD)
    if code is None:
        raise IndexMismatch(f"{name} has no codes or no self-test document: {REPAIR}")
    encoder = stored.get("xmodal", {}).get("encoder")
    if encoder is None:
        raise IndexMismatch(f"the self-test document of {name} does not name an encoder: {REPAIR}")
    bits = 64 * len(code) if isinstance(code, Mapping) else 8 * len(code)
    layout = LAYOUTS["long" if isinstance(code, Mapping) else "flat"]
    if layout.codes([code], bits) != mapping.self_test_code(bits):
        raise IndexMismatch(f"the self-test document of {name} has unexpected bits: {REPAIR}")
    meta = mapping.build_meta(bits, encoder, enriched=_is_enriched(server, name))
    if mapping.WORDS not in types:
        meta["xmodal"].pop("words", None)
    elif "words" in meta["xmodal"]:
        meta["xmodal"]["words"] = WORDS_VERSION
    return {
        "aliases": {},
        "settings": {"index.uuid": name, "index.number_of_shards": 2},
        "mappings": {"_meta": meta, "properties": _properties(types, bits)},
    }


def _field_types(server: Server, name: str, fields: str) -> dict[str, dict[str, str]]:
    """Return the types of fields of each index that ``name`` covers."""
    answer = server.request("GET", f"/{name}/_field_caps", doing=f"opening {name}", fields=fields)
    return {
        index: {
            field: kind
            for field, kinds in answer["fields"].items()
            for kind, found in kinds.items()
            if not field.startswith("_") and index in found.get("indices", answer["indices"])
        }
        for index in answer["indices"]
    }


def _is_enriched(server: Server, name: str) -> bool:
    """Return whether documents besides the self-test document name their encoder."""
    present = [{"exists": {"field": field}} for field in (mapping.ENCODER, mapping.ID)]
    return server.count(name, {"bool": {"filter": present}}) > 0


def _properties(types: Mapping[str, str], bits: int) -> dict[str, Any]:
    """Return the properties of a mapping with these types by path."""
    properties: dict[str, Any] = {}
    for path, kind in sorted(types.items()):
        if kind == "object":
            continue
        parent, _, name = path.rpartition(".")
        inside = properties
        for part in parent.split(".") if parent else ():
            inside = inside.setdefault(part, {}).setdefault("properties", {})
        inside.setdefault(name, {})["type"] = kind
    for modality in MODALITIES:
        field = properties.get(mapping.field_of(modality), {})
        if field.get("type") == "knn_vector":
            field |= {"data_type": "binary", "dimension": bits}
    return properties

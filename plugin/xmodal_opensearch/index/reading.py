"""Reading documents back: by id, by sample, and as facets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.index.contract import Facets, to_facets
from xmodal.index.documents import DocumentBatch, empty_columns
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.bulk_lines import is_usable
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.mapping import field_of
from xmodal_opensearch.index.queries import MAX_HITS

MAX_FACET_FIELDS = 100


def read_batch(handle: IndexHandle, ids: Sequence[str]) -> DocumentBatch:
    """Return codes and fields of the ids that exist, in the order of ``ids``."""
    found = _read_sources(handle, ids)
    sources = {id_: found[id_] for id_ in ids if id_ in found}
    packed, present = empty_columns(len(sources), handle.bits)
    for modality in MODALITIES:
        values = [source.get(field_of(modality)) for source in sources.values()]
        rows = [row for row, value in enumerate(values) if value is not None]
        if rows:
            codes = handle.layout.codes([values[row] for row in rows], handle.bits)
            packed[modality][rows] = codes.packed
            present[modality][rows] = True
    fields = [
        json.dumps({k: v for k, v in one.items() if k not in mapping.RESERVED_FIELDS}, ensure_ascii=False)
        for one in sources.values()
    ]
    return DocumentBatch(list(sources), packed, present, fields)


def count_documents(handle: IndexHandle) -> int:
    """Return the number of documents, the self-test document not counted."""
    handle.refresh()
    return handle.count({"bool": {"filter": _documents(handle)}})


def read_facets(handle: IndexHandle, max_values: int) -> Facets:
    """Return facets, see the contract, of the first 100 keyword and boolean fields."""
    handle.refresh()
    fields = [
        (name.removesuffix(".keyword"), name)
        for name, kind in sorted(handle.read_types().items())
        if kind in ("keyword", "boolean") and not mapping.is_reserved(name)
    ][:MAX_FACET_FIELDS]
    if not fields:
        return {}
    body = {
        "size": 0,
        "query": {"bool": {"filter": _documents(handle)}},
        "aggs": {path: {"terms": {"field": path, "size": max_values + 1}} for _, path in fields},
    }
    (answer,) = handle.search([body])
    counts = {
        field: {
            str(one.get("key_as_string", one["key"])): int(one["doc_count"])
            for one in answer["aggregations"][path]["buckets"]
        }
        for field, path in fields
    }
    return to_facets(counts, max_values)


def sample_codes(
    handle: IndexHandle, modality: Modality, count: int, seed: int = 0
) -> tuple[list[str], BinaryCodes]:
    """Return ids and codes of documents drawn at random among those with a code of ``modality``."""
    handle.refresh()
    field = field_of(modality)
    random = {"random_score": {"seed": seed, "field": "_seq_no"}}
    present = {"bool": {"filter": [handle.layout.present(field), *handle.filters(None)]}}
    query = {"function_score": {"query": present, **random}}
    (answer,) = handle.search([{"size": min(count, MAX_HITS), "query": query, "_source": [field]}])
    found = answer["hits"]["hits"]
    codes = handle.layout.codes([one["_source"][field] for one in found], handle.bits)
    return [one["_id"] for one in found], codes


def _documents(handle: IndexHandle) -> list[Mapping[str, Any]]:
    """The filters that every document of the index passes."""
    return [{"exists": {"field": mapping.ID}}, *handle.filters(None)]


def _read_sources(handle: IndexHandle, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``_source`` of the documents that exist, as stored at this moment."""
    if handle.enriched:
        return _search_sources(handle, ids)
    known = [id_ for id_ in dict.fromkeys(ids) if is_usable(id_)]
    if not known:
        return {}
    answer = handle.server.request(
        "POST", f"/{handle.name}/_mget", {"ids": known}, doing="reading documents"
    )
    return {one["_id"]: one["_source"] for one in answer["docs"] if one.get("found")}


def _search_sources(handle: IndexHandle, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The same in an enriched index: with any routing, and only documents of this encoder."""
    handle.refresh()
    out = {}
    for start in range(0, len(ids), MAX_HITS):
        these = {"ids": {"values": list(ids[start : start + MAX_HITS])}}
        query = {"bool": {"filter": [these, *handle.filters(None)]}}
        (answer,) = handle.search([{"size": MAX_HITS, "query": query}])
        out.update({one["_id"]: one["_source"] for one in answer["hits"]["hits"]})
    return out

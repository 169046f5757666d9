"""Reading of stored documents: by id, as a sample, counts and facets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.index.contract import Facets, to_facets
from xmodal.index.documents import DocumentBatch, to_offsets
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.bulk_lines import is_usable
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.mapping import field_of
from xmodal_opensearch.index.queries import MAX_HITS, Query

MAX_FACET_FIELDS = 100


def read_batch(handle: IndexHandle, ids: Sequence[str]) -> DocumentBatch:
    """Return codes and fields of the ids that exist, each once, in the order of ``ids``."""
    stored = _read_sources(handle, list(dict.fromkeys(ids)))
    sources = {id_: stored[id_] for id_ in ids if id_ in stored}
    packed, offsets = {}, {}
    for modality in MODALITIES:
        values = [source.get(field_of(modality)) for source in sources.values()]
        stored_values = [value for value in values if value is not None]
        codes = BinaryCodes.empty(handle.bits)
        if stored_values:
            codes = handle.layout.codes(stored_values, handle.bits)
        packed[modality] = codes.packed
        offsets[modality] = to_offsets([value is not None for value in values])
    fields = [
        json.dumps(mapping.user_fields(source), ensure_ascii=False) for source in sources.values()
    ]
    return DocumentBatch(list(sources), packed, offsets, fields)


def count_documents(handle: IndexHandle) -> int:
    """Return the number of documents without the self-test document."""
    handle.refresh()
    return handle.count({"bool": {"filter": _documents(handle)}})


def read_facets(handle: IndexHandle, max_values: int) -> Facets:
    """Return facets (see the contract) of the first 100 keyword and boolean fields."""
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
            str(bucket.get("key_as_string", bucket["key"])): int(bucket["doc_count"])
            for bucket in answer["aggregations"][path]["buckets"]
        }
        for field, path in fields
    }
    return to_facets(counts, max_values)


def sample_codes(
    handle: IndexHandle, modality: Modality, count: int, seed: int = 0
) -> tuple[list[str], BinaryCodes]:
    """Return ids and codes of ``count`` random documents that have a code of ``modality``."""
    handle.refresh()
    field = field_of(modality)
    random = {"random_score": {"seed": seed, "field": "_seq_no"}}
    present = {"bool": {"filter": [handle.layout.present(field), *handle.filters(None)]}}
    query = {"function_score": {"query": present, **random}}
    (answer,) = handle.search([{"size": min(count, MAX_HITS), "query": query, "_source": [field]}])
    hits = answer["hits"]["hits"]
    codes = handle.layout.codes([hit["_source"][field] for hit in hits], handle.bits)
    return [hit["_id"] for hit in hits], codes


def _documents(handle: IndexHandle) -> list[Query]:
    """Return the filters that all documents but the self-test document pass."""
    return [{"exists": {"field": mapping.ID}}, *handle.filters(None)]


def _read_sources(handle: IndexHandle, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return ``_source`` by id of the documents that exist, including unrefreshed changes."""
    if handle.enriched:
        return _search_sources(handle, ids)
    usable = [id_ for id_ in ids if is_usable(id_)]
    sources = {}
    for start in range(0, len(usable), MAX_HITS):
        body = {"ids": usable[start : start + MAX_HITS]}
        answer = handle.server.request(
            "POST", f"/{handle.name}/_mget", body, doing="reading documents"
        )
        sources.update({doc["_id"]: doc["_source"] for doc in answer["docs"] if doc.get("found")})
    return sources


def _search_sources(handle: IndexHandle, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the same of an enriched index: documents of any routing, of this encoder only."""
    handle.refresh()
    sources = {}
    for start in range(0, len(ids), MAX_HITS):
        with_ids = {"ids": {"values": list(ids[start : start + MAX_HITS])}}
        query = {"bool": {"filter": [with_ids, *handle.filters(None)]}}
        (answer,) = handle.search([{"size": MAX_HITS, "query": query}])
        sources.update({hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]})
    return sources

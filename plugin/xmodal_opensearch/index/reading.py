"""Reading of stored documents: by id, as a sample, counts and facets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexMismatch
from xmodal.index.contract import Facets, Hit, to_facets
from xmodal.index.documents import DocumentBatch
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.index import mapping, queries
from xmodal_opensearch.index.bulk_lines import is_usable
from xmodal_opensearch.index.comparison import best_hits, read_stored, source_fields
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.queries import MAX_HITS, Query
from xmodal_opensearch.index.scope import ambiguous

MAX_FACET_FIELDS = 100


def read_batch(handle: IndexHandle, ids: Sequence[str]) -> DocumentBatch:
    """Return codes and fields of the ids that exist, each once, in the order of ``ids``."""
    found = _read_documents(handle, list(dict.fromkeys(ids)))
    sources = {id_: found[id_]["_source"] for id_ in ids if id_ in found}
    packed, offsets, vectors = {}, {}, {}
    for modality in MODALITIES:
        stored = read_stored(
            list(sources.values()), modality, handle.layout, handle.bits, handle.dim
        )
        packed[modality], offsets[modality] = stored.codes.packed, stored.offsets
        if stored.vectors is not None:
            vectors[modality] = stored.vectors
    fields = [
        json.dumps(mapping.user_fields(source), ensure_ascii=False) for source in sources.values()
    ]
    origins = [source.get("xmodal", {}).get("origin", "") for source in sources.values()]
    known = origins if any(origins) else []
    return DocumentBatch(list(sources), packed, offsets, fields, vectors, known)


def read_fields(handle: IndexHandle, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the user's fields of the documents that exist, by id."""
    found = _read_documents(handle, list(dict.fromkeys(ids)), left_out=mapping.RESERVED_FIELDS)
    return {id_: document["_source"] for id_, document in found.items()}


def measure(
    handle: IndexHandle, query: QueryCodes, ids: Sequence[str], target: Modality
) -> dict[str, Hit]:
    """Return the hits that documents would be for one query, by id; see the contract."""
    found = list(_read_documents(handle, list(dict.fromkeys(ids))).values())
    dim = None if query.vectors is None else handle.dim
    sources = [document["_source"] for document in found]
    stored = read_stored(sources, target, handle.layout, handle.bits, dim)
    return {hit.id: hit for hit in best_hits(found, query, stored)}


def count_target(
    handle: IndexHandle, target: Modality, where: Mapping[str, Any] | None = None
) -> int:
    """Return the number of documents with a code of ``target`` that pass the filters."""
    filters = handle.filters(where)
    handle.refresh()
    present = queries.present(target, handle.layout, nested=handle.queries_nested(target))
    return handle.count({"bool": {"filter": [present, *filters]}})


def count_documents(handle: IndexHandle) -> int:
    """Return the number of documents without the self-test document."""
    handle.refresh()
    return handle.count({"bool": {"filter": documents(handle)}})


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
        "query": {"bool": {"filter": documents(handle)}},
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
    """Return ids and first codes of ``count`` random documents with a code of ``modality``."""
    handle.refresh()
    random = {"random_score": {"seed": seed, "field": "_seq_no"}}
    present = queries.present(modality, handle.layout, nested=handle.queries_nested(modality))
    query = {
        "function_score": {
            "query": {"bool": {"filter": [present, *handle.filters(None)]}},
            **random,
        }
    }
    source = source_fields(modality, vectors=False)
    body = {"size": min(count, handle.window), "query": query, "_source": source}
    (answer,) = handle.search([body])
    hits = answer["hits"]["hits"]
    sources = [hit["_source"] for hit in hits]
    stored = read_stored(sources, modality, handle.layout, handle.bits)
    return [hit["_id"] for hit in hits], stored.codes[stored.offsets[:-1]]


def documents(handle: IndexHandle) -> list[Query]:
    """Return the filters that all documents but the self-test document pass."""
    return [{"exists": {"field": mapping.ID}}, *handle.filters(None)]


def _read_documents(
    handle: IndexHandle, ids: Sequence[str], left_out: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return the documents that exist by id, as hits, including unrefreshed changes.

    ``left_out``: fields that are not returned.
    """
    usable = [id_ for id_ in ids if is_usable(id_)]
    if handle.enriched or handle.is_restricted or not handle.scope.is_whole:
        return _search_documents(handle, usable, left_out)
    if handle.capabilities.secured:
        handle.refresh()  # a user with hidden fields reads by id what is visible to searches
    options: dict[str, Any] = {"_source_excludes": ",".join(left_out)} if left_out else {}
    documents: dict[str, dict[str, Any]] = {}
    for start in range(0, len(usable), MAX_HITS):
        part = usable[start : start + MAX_HITS]
        found = handle.server.read_documents(
            handle.name, part, doing="reading documents", **options
        )
        documents |= {
            one["_id"]: {"_id": one["_id"], "_source": one["_source"]}
            for one in found
            if one["found"]
        }
    handle.check_unfixed_scope()  # the request was to the index, without a filter of its alias
    return documents


def _search_documents(
    handle: IndexHandle, ids: Sequence[str], left_out: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the same by a search: documents of the scope, of any routing, of this encoder only.

    Raises IndexMismatch for an id that several documents have, in two indexes or with two routings.
    """
    handle.refresh()
    documents: dict[str, dict[str, Any]] = {}
    size = max(1, handle.window // 2)  # so that with several documents of an id, two are read
    for start in range(0, len(ids), size):
        with_ids = {"ids": {"values": list(ids[start : start + size])}}
        query = {"bool": {"filter": [with_ids, *handle.filters(None)]}}
        source = {"excludes": list(left_out)} if left_out else True
        (answer,) = handle.search([{"size": handle.window, "query": query, "_source": source}])
        hits = answer["hits"]["hits"]
        if several := ambiguous(handle.scope, hits):
            raise IndexMismatch(f"{handle.address}: {several}: open one of the indexes")
        documents |= {hit["_id"]: hit for hit in hits}
    return documents

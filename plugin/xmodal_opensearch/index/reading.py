"""Reading of stored documents: by id, as a sample, counts and facets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.index.contract import Facets, to_facets
from xmodal.index.documents import DocumentBatch, to_offsets
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.index import mapping, queries
from xmodal_opensearch.index.bulk_lines import is_usable
from xmodal_opensearch.index.handle import IndexHandle, nearest_codes
from xmodal_opensearch.index.mapping import field_of, nested_path
from xmodal_opensearch.index.queries import MAX_HITS, Query

MAX_FACET_FIELDS = 100


def read_batch(handle: IndexHandle, ids: Sequence[str]) -> DocumentBatch:
    """Return codes and fields of the ids that exist, each once, in the order of ``ids``."""
    stored = _read_sources(handle, list(dict.fromkeys(ids)))
    sources = {id_: stored[id_] for id_ in ids if id_ in stored}
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
    return DocumentBatch(list(sources), packed, offsets, fields, vectors)


def read_fields(handle: IndexHandle, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the user's fields of the documents that exist, by id."""
    return _read_sources(handle, list(dict.fromkeys(ids)), codes=False)


def measure(
    handle: IndexHandle, query: QueryCodes, ids: Sequence[str], target: Modality
) -> dict[str, Hit]:
    """Return the hits that documents would be for one query, by id; see the contract."""
    batch = read_batch(handle, ids)
    fields = batch.fields_by_id()
    found = [{"_id": id_, "_source": fields[id_]} for id_ in batch.ids]
    dim = handle.dim if query.vectors is not None else None
    stored = ...
    return {hit.id: hit for hit in best_hits(found, query, stored)}


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
    body = {"size": min(count, MAX_HITS), "query": query, "_source": code_fields(modality)}
    (answer,) = handle.search([body])
    hits = answer["hits"]["hits"]
    codes, offsets = stored_codes(handle, [hit["_source"] for hit in hits], modality)
    return [hit["_id"] for hit in hits], codes[offsets[:-1]]


def code_fields(modality: Modality) -> list[str]:
    """Return the fields of ``_source`` to request, which may have codes of ``modality``.

    k-NN 3.6 removes the codes from nested objects of ``_source`` if only their path is requested.
    """
    return [field_of(modality), f"{nested_path(modality)}.*"]


def stored_codes(
    handle: IndexHandle, sources: Sequence[Mapping[str, Any]], modality: Modality
) -> tuple[BinaryCodes, npt.NDArray[np.int64]]:
    """Return the codes of documents with these ``_source``, and the offsets of each document."""
    flat, path = field_of(modality), nested_path(modality)
    objects = [
        source.get(path)
        or handle.layout.objects([source[flat]] if source.get(flat) is not None else [])
        for source in sources
    ]
    codes = handle.layout.object_codes([one for each in objects for one in each], handle.bits)
    return codes, to_offsets([len(each) for each in objects])


def read_nearest(
    handle: IndexHandle, code: BinaryCodes, ids: Sequence[str], target: Modality
) -> dict[str, tuple[int, int]]:
    """Return distance and position of the nearest code of the documents with codes, by id."""
    batch = read_batch(handle, ids)
    stored = BinaryCodes(batch.packed[target], handle.bits)
    nearest = nearest_codes(code, stored, batch.offsets[target])
    return {id_: at for id_, at in zip(batch.ids, nearest, strict=True) if at is not None}


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

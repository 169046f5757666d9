"""Listing of an index: its documents without codes, numbers of codes, and bytes on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xmodal.errors import ConfigError
from xmodal.index.origins import Entry, read_origin
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.reading import documents

PAGE = 2000
"""Documents of a page; their fields are in memory at the same time."""


def list_entries(
    handle: IndexHandle, where: Mapping[str, Any] | None, source: str | None
) -> Iterator[Entry]:
    """Yield documents in order of id; see :class:`xmodal.index.origins.ListedIndex`."""
    handle.settle()
    handle.refresh()
    filters = [*documents(handle), *handle.filters(where)]
    if source is not None:
        filters.append({"term": {mapping.SOURCE: source}})
    excluded = [name for name in mapping.RESERVED_FIELDS if name != "xmodal"]
    body: dict[str, Any] = {
        "size": min(PAGE, handle.window),
        "query": {"bool": {"filter": filters}},
        "sort": [{mapping.ID: "asc"}],
        "_source": {"excludes": excluded},
        "track_total_hits": False,
    }
    for answer in handle.pages(body, doing="listing documents"):
        for hit in answer["hits"]["hits"]:
            found = hit["_source"]
            origin = read_origin(found.get("xmodal", {}).get("origin"))
            yield Entry(hit["_id"], mapping.user_fields(found), origin)


def count_codes(handle: IndexHandle) -> dict[Modality, int]:
    """Return the number of stored codes of each modality."""
    handle.refresh()
    handle.read_types()
    aggregations: dict[str, Any] = {}
    for modality in MODALITIES:
        present = handle.layout.present(mapping.field_of(modality))
        aggregations[modality] = {"filter": present}
        if handle.has_nested_codes(modality):
            path = mapping.nested_path(modality)
            aggregations[path] = {"nested": {"path": path}}
    body = {
        "size": 0,
        "query": {"bool": {"filter": documents(handle)}},
        "aggs": aggregations,
    }
    (answer,) = handle.search([body])
    counts = {name: int(one["doc_count"]) for name, one in answer["aggregations"].items()}
    return {
        modality: counts[modality] + counts.get(mapping.nested_path(modality), 0)
        for modality in MODALITIES
    }


def disk_usage(handle: IndexHandle) -> dict[str, int]:
    """Return the bytes of the primary shards and of their replicas."""
    if handle.scope.has_remote:
        raise ConfigError(f"{handle.address} has remote indexes, whose size only they return")
    path = f"/{handle.scope.target}/_stats/store"
    answer = handle.server.request("GET", path, doing="reading the size of the index")
    found = [answer["indices"][name] for name in handle.scope.indexes]
    primaries, total = (
        sum(int(one[part]["store"]["size_in_bytes"]) for one in found)
        for part in ("primaries", "total")
    )
    return {"primary shards": primaries, "replicas": total - primaries}

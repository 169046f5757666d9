"""Dry run of ``enrich``: counts of the documents and of their values, without any change."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.web.address import is_address, without_secrets
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.loading.document_sources import NOT_AVAILABLE, Source
from xmodal_opensearch.loading.preparation import check_width, describe_existing, read_identity
from xmodal_opensearch.loading.selection import Selection, documents_with_fields
from xmodal_opensearch.loading.shard_reader import ShardReader
from xmodal_opensearch.loading.undo import documents_with_codes

MAX_HOSTS = 1000
"""Hosts that are counted."""


@dataclass
class Preview:
    """Numbers of documents, and of the values of those that would be encoded.

    ``documents``: of the index. ``encoded``: with codes of this encoder, and ``other`` with codes
    of another. ``to_encode``: read by a run, ``without``: of these without a usable value.
    ``hosts``: numbers of addresses by host.
    """

    documents: int = 0
    encoded: int = 0
    other: int = 0
    to_encode: int = 0
    without: int = 0
    texts: int = 0
    files: int = 0
    addresses: int = 0
    hosts: Counter[str] = field(default_factory=Counter)


def preview(
    server: Server,
    address: Address,
    bits: int,
    fingerprint: str,
    source: Source,
    *,
    selection: Selection,
    problems: Problems,
    progress: Progress | None = None,
) -> Preview:
    """Count what :func:`enrich` would do. Nothing is decoded, encoded, downloaded or changed.

    Raises the errors of ``prepare`` for an index that cannot be enriched.
    """
    name, content = describe_existing(server, address)
    mappings, shards = content["mappings"], int(content["settings"]["index.number_of_shards"])
    stored = read_identity(address, name, mappings)
    if stored is not None:
        check_width(address, stored[0], bits)
    types = mapping.field_types(mappings)
    chosen = documents_with_fields(server, str(address), name, types, source.fields)
    query = {"bool": {"filter": [chosen, *selection.filters(fingerprint)]}}
    result = Preview(server.count(name, {"match_all": {}}) - (stored is not None))
    coded, own = documents_with_codes(), {"term": {mapping.ENCODER: fingerprint}}
    result.encoded = server.count(name, {"bool": {"filter": [coded, own]}})
    result.other = server.count(name, coded) - result.encoded
    total = server.count(name, query)
    for hits in ShardReader(server, name, shards, query, source.fields, selection.share).pages():
        result.to_encode += len(hits)
        for hit in hits:
            _count(hit["_id"], hit.get("_source", {}), source, result, problems)
        if progress is not None:
            progress("counted", result.to_encode, max(total, result.to_encode))
    return result


def _count(
    id_: str, document: dict[str, object], source: Source, result: Preview, problems: Problems
) -> None:
    """Add the values of one document."""
    texts = source.texts(id_, document, problems)
    pictures = source.pictures(id_, document, problems)
    result.texts += len(texts)
    for name in pictures:
        if is_address(name):
            result.addresses += 1
            try:
                host = urlsplit(without_secrets(name)).hostname or ""
            except ValueError:
                host = ""
            if host in result.hosts or len(result.hosts) < MAX_HOSTS:
                result.hosts[host] += 1
            continue
        reason = source.missing(name)
        if reason:
            problems.add(NOT_AVAILABLE, f"{id_} ({reason})")
        else:
            result.files += 1
    result.without += not (texts or pictures)

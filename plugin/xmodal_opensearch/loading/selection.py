"""Selection of the documents to encode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xmodal.errors import ConfigError
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.filter_queries import is_nested
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.loading.shard_reader import ALL, Share


@dataclass(frozen=True)
class Selection:
    """The documents that are encoded: those without codes of the encoder, and others.

    ``again``: all. ``incomplete``: also those of which a picture was not available. ``share``: a
    part of these, for several processes.
    """

    again: bool = False
    incomplete: bool = False
    share: Share = ALL

    def filters(self, fingerprint: str) -> list[Query]:
        """Return the filters of the documents, except for the share."""
        if self.again:
            return []
        missing: Query = {"bool": {"must_not": [{"term": {mapping.ENCODER: fingerprint}}]}}
        if not self.incomplete:
            return [missing]
        incomplete: Query = {"term": {mapping.INCOMPLETE: True}}
        return [{"bool": {"should": [missing, incomplete], "minimum_should_match": 1}}]


def check_fields(index: str, types: Mapping[str, str], fields: Sequence[str]) -> None:
    """Raise ConfigError for a field that the index does not have; ``types``: by field."""
    for name in fields:
        if name not in types:
            known = ", ".join(sorted(path for path in types if not mapping.is_reserved(path))[:20])
            raise ConfigError(f"{index} has no field {name!r}, expected one of {known or 'none'}")


def documents_with_fields(
    server: Server, index: str, name: str, types: Mapping[str, str], fields: Sequence[str]
) -> Query:
    """Return the query of documents with one of the fields, without the self-test document.

    Fields that cannot be searched are no condition: then all documents are read. ``index``: for
    messages. Raises ConfigError for a field that the index does not have.
    """
    check_fields(index, types, fields)
    capabilities = server.request(
        "GET", f"/{name}/_field_caps", doing="reading fields", fields=",".join(fields)
    )["fields"]
    searchable = all(
        any(
            kind["searchable"] or kind["aggregatable"]
            for kind in capabilities.get(field, {}).values()
        )
        and not is_nested(field, types)
        for field in fields
    )
    is_own: Query = {"bool": {"must_not": [{"ids": {"values": [mapping.SELF_TEST_ID]}}]}}
    if not searchable:
        return is_own
    exists: list[Query] = [{"exists": {"field": field}} for field in fields]
    return {"bool": {"filter": [is_own], "should": exists, "minimum_should_match": 1}}

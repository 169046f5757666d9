"""Undoing of ``enrich``: codes are removed from the user's documents."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.errors import ConfigError, IndexFailure
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server, is_repeated, is_retryable
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.index.write_guard import write_target
from xmodal_opensearch.loading.pacing import Throttle
from xmodal_opensearch.loading.preparation import (
    describe_existing,
    read_identity,
    remove_preparation,
)
from xmodal_opensearch.loading.shard_reader import PAGE, Hit, ShardReader

MAX_ROUNDS = 5
"""Readings of the documents that changed meanwhile, at most."""
SCRIPT = {
    "lang": "painless",
    "source": "for (def name : params.names) { ctx._source.remove(name); }",
    "params": {"names": list(mapping.RESERVED_FIELDS)},
}
"""A partial update can set fields to null, but not remove them."""


def documents_with_codes() -> Query:
    """Return the query of the documents that were enriched, by any encoder."""
    is_test: Query = {"ids": {"values": [mapping.SELF_TEST_ID]}}
    return {"bool": {"filter": [{"exists": {"field": mapping.ID}}], "must_not": [is_test]}}


def undo(
    server: Server,
    address: Address,
    *,
    problems: Problems,
    workers: int = 2,
    docs_per_second: float | None = None,
    progress: Progress | None = None,
) -> int:
    """Remove codes from all documents, then the description of the codes; return their number.

    A second run continues. The documents are those of before ``enrich``; the fields in the mapping
    stay. Raises ConfigError for an index that is not enriched, and IndexFailure if documents with
    codes are left.
    """
    name, content = describe_existing(server, address)
    mappings = content["mappings"]
    is_prepared = read_identity(address, name, mappings) is not None
    if not is_prepared and mapping.ID not in mapping.field_types(mappings):
        raise ConfigError(f"{address} has no codes, expected an index with codes of enrich")
    query = documents_with_codes()
    refresh(server, name)
    total, done, removed = server.count(name, query), 0, 0
    throttle = Throttle(docs_per_second)
    size = math.ceil(docs_per_second) if docs_per_second else PAGE
    shards = int(content["settings"]["index.number_of_shards"])
    reader = ShardReader(server, name, shards, query, [], max_page=size)

    def batches() -> Iterator[bulk.Batch]:
        nonlocal done
        for hits in reader.pages():
            throttle.wait(len(hits))
            done += len(hits)
            if progress is not None:
                progress("removed", done, max(total, done))
            yield [_removal(hit) for hit in hits]

    def count(batch: bulk.Batch, report: bulk.Report) -> None:
        nonlocal removed
        removed += report.stored
        for id_, reason in report.failed.items():
            if "version conflict" not in reason and "document missing" not in reason:
                problems.add(f"update refused ({reason[:100]})", id_)
        report.failed.clear()

    target, is_alias = write_target(server, name)
    for _ in range(MAX_ROUNDS):
        before = done
        bulk.send(
            batches(),
            lambda body: server.bulk(target, body, is_alias=is_alias),
            is_retryable,
            is_repeated=is_repeated,
            workers=workers,
            retry_timeout=server.retry_timeout,
            on_sent=count,
        )
        refresh(server, name)
        if done == before:
            break
    left = server.count(name, query)
    if left:
        raise IndexFailure(f"{left:,} documents of {address} still have codes: run it again")
    remove_preparation(server, name, mappings.get("_meta", {}), target if is_alias else None)
    return removed


def refresh(server: Server, name: str) -> None:
    """Make all changes of an index visible to searches."""
    server.request("POST", f"/{name}/_refresh", doing="refreshing")


def _removal(hit: Hit) -> bulk.Line:
    """Return the line that removes the codes of a document, unless it changed meanwhile."""
    action: dict[str, Any] = {
        "_id": hit["_id"],
        "if_seq_no": hit["_seq_no"],
        "if_primary_term": hit["_primary_term"],
    }
    if "_routing" in hit:
        action["routing"] = hit["_routing"]
    head = json.dumps({"update": action}, ensure_ascii=False)
    return bulk.Line(hit["_id"], f"{head}\n{json.dumps({'script': SCRIPT})}\n".encode())

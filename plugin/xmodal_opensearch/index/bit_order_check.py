"""Self-test document: a known code in every index, which detects another bit order."""

from __future__ import annotations

from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexMismatch
from xmodal.index.query_codes import QueryCodes
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.retry import poll
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import codec, mapping
from xmodal_opensearch.index import queries as build
from xmodal_opensearch.index.mapping import Layout
from xmodal_opensearch.index.strategies import Strategy

CREATION_TIMEOUT = 3.0
"""Seconds to wait for the self-test document of an index that another process is creating."""


def store_self_test(
    server: Server, name: str, bits: int, layout: Layout, *, pipeline: str | None = "_none"
) -> None:
    """Store the self-test document in the index ``name``; it has no fields but its code.

    ``pipeline``: ingest pipeline of the document, "_none" for no default pipeline of the index, and
    None for the default pipeline.
    """
    (value,) = layout.values(mapping.self_test_code(bits))
    optional: dict[str, Any] = {} if pipeline is None else {"pipeline": pipeline}
    server.request(
        "PUT",
        f"/{name}/_doc/{mapping.SELF_TEST_ID}",
        {mapping.SELF_TEST_FIELD: value},
        doing="storing the self-test",
        refresh="true",
        routing=mapping.SELF_TEST_ID,  # the server's default, which some indexes require
        **optional,
    )


def read_self_test(server: Server, name: str) -> dict[str, Any] | None:
    """Return the fields of the self-test document in the index ``name``, or None if missing."""
    body = {"size": 1, "query": {"ids": {"values": [mapping.SELF_TEST_ID]}}}
    answer = server.search(f"/{name}/_search", body, doing="reading the self-test")
    hits = answer["hits"]["hits"]
    return dict(hits[0].get("_source", {})) if hits else None


def check_bit_order(
    server: Server, address: Address, name: str, bits: int, layout: Layout, strategy: Strategy
) -> None:
    """Search the self-test document, and compare its distance and code with the expected ones.

    Raises IndexMismatch if they differ or the document is missing.
    """
    expected = mapping.self_test_code(bits)
    query = BinaryCodes.from_hex(["0f" * (bits // 8)])
    hit = _find_self_test(server, name, query, layout, strategy)
    if hit is None:
        raise IndexMismatch(
            f"{address} has lost its self-test document {mapping.SELF_TEST_ID!r}: "
            "restore it with xmodal-opensearch doctor --repair"
        )
    stored = hit["_source"].get(mapping.SELF_TEST_FIELD)
    distance = int(expected.distances(query)[0, 0])
    if codec.to_key(hit["_score"]) != distance or (
        stored is not None and layout.codes([stored], bits) != expected
    ):
        raise IndexMismatch(
            f"{address}: the self-test document has unexpected bits, expected bit order "
            f"{mapping.BIT_ORDER!r}: load the index again with this version"
        )


def _find_self_test(
    server: Server, name: str, query: BinaryCodes, layout: Layout, strategy: Strategy
) -> dict[str, Any] | None:
    """Return the hit of the self-test document, or None if it does not appear in time."""
    only = [{"ids": {"values": [mapping.SELF_TEST_ID]}}]
    if strategy.build is None:
        body_query = build.by_knn(mapping.SELF_TEST_FIELD, query, only, 1)
    else:
        one = QueryCodes(query)
        body_query = strategy.build(mapping.SELF_TEST_FIELD, one, layout, only, None)
    body = {"size": 1, "query": body_query}
    waiting = poll(CREATION_TIMEOUT)
    while True:
        answer = server.search(f"/{name}/_search", body, doing="testing the bit order")
        hits: list[dict[str, Any]] = answer["hits"]["hits"]
        if hits:
            return hits[0]
        if not waiting.wait():
            return None

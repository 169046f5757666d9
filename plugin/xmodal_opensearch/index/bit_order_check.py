"""A document whose bits we know: whoever packs bits in another way is found out at once."""

from __future__ import annotations

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexMismatch
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.retry import poll
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import codec, mapping
from xmodal_opensearch.index import queries as build
from xmodal_opensearch.index.mapping import Layout
from xmodal_opensearch.index.strategies import Strategy

SETTLING = 3.0
"""Seconds in which an index that was just made gets its document."""


def store_self_test(server: Server, name: str, bits: int, layout: Layout) -> None:
    """Store the document; its code is that of :func:`xmodal_opensearch.index.mapping.self_test`."""
    (value,) = layout.values(mapping.self_test_code(bits))
    server.request(
        "PUT",
        f"/{name}/_doc/{mapping.SELF_TEST_ID}",
        {mapping.SELF_TEST_FIELD: value},
        doing="storing the self-test",
        refresh="true",
    )


def check_bit_order(
    server: Server, address: Address, name: str, bits: int, layout: Layout, strategy: Strategy
) -> None:
    """Compare the known code with what a search by ``strategy`` finds. Raises IndexMismatch."""
    wanted = mapping.self_test_code(bits)
    other = BinaryCodes.from_hex(["0f" * (bits // 8)])
    only = [{"ids": {"values": [mapping.SELF_TEST_ID]}}]
    if strategy.build is None:
        query = build.by_knn(mapping.SELF_TEST_FIELD, other, only, 1)
    else:
        query = strategy.build(mapping.SELF_TEST_FIELD, other, layout, only, None)
    body = {"size": 1, "query": query}
    settling = poll(SETTLING)  # a process that makes this index now stores the document next
    while True:
        found = server.search(f"/{name}/_search", body, doing="testing the bit order")
        hits = found["hits"]["hits"]
        if hits or not settling.wait():
            break
    expected = int(wanted.distances(other)[0, 0])
    if not hits:
        raise IndexMismatch(
            f"{address} has lost its self-test document {mapping.SELF_TEST_ID!r}: "
            "bring it back with xmodal-opensearch doctor --repair"
        )
    stored = hits[0]["_source"].get(mapping.SELF_TEST_FIELD)
    if codec.to_distance(hits[0]["_score"]) != expected or (
        stored is not None and layout.codes([stored], bits) != wanted
    ):
        raise IndexMismatch(
            f"{address}: the self-test document holds other bits than ours in our order "
            f"({mapping.BIT_ORDER}): whoever made this index packs bits in another way"
        )

"""Self-test document: a known code in every index, which detects another bit order."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexMismatch, ServerFailure
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import MODALITIES
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.retry import poll
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import codec, mapping, write_guard
from xmodal_opensearch.index import queries as build
from xmodal_opensearch.index.mapping import Layout
from xmodal_opensearch.index.strategies import Strategy

SAMPLE = 20
"""Documents that are read to find one with a code."""
CREATION_TIMEOUT = 3.0
"""Seconds to wait for the self-test document of an index that another process is creating."""


def store_self_test(
    server: Server, name: str, bits: int, layout: Layout, *, pipeline: str | None = "_none"
) -> None:
    """Store the self-test document in the index ``name``: its code and the encoder of the index.

    The encoder is for reading from other clusters, to which the server does not return mappings.
    ``pipeline``: ingest pipeline of the document, "_none" for no default pipeline of the index, and
    None for the default pipeline.
    """
    (value,) = layout.values(mapping.self_test_code(bits))
    optional: dict[str, Any] = {} if pipeline is None else {"pipeline": pipeline}
    ((_, content),) = server.request("GET", f"/{name}/_mapping", doing="reading an encoder").items()
    encoder = content["mappings"].get("_meta", {}).get("xmodal", {}).get("encoder")
    own = {} if encoder is None else {"xmodal": {"encoder": encoder}}
    target, is_alias = write_guard.write_target(server, name)
    server.request(
        "PUT",
        f"/{target}/_doc/{mapping.SELF_TEST_ID}",
        {mapping.SELF_TEST_FIELD: value, **own},
        doing="storing the self-test",
        refresh="true",
        require_alias=str(is_alias).lower(),
        routing=mapping.SELF_TEST_ID,  # the server's default, which some indexes require
        **optional,
    )


class SelfTest(NamedTuple):
    """Result of the check for one user.

    ``checked``: False if document-level security hides the document. ``restricted``: whether
    document-level security may hide documents of the index from the user.
    """

    checked: bool
    restricted: bool


def read_self_test(server: Server, name: str) -> dict[str, Any] | None:
    """Return the fields of the self-test document in the index ``name``, or None if missing."""
    body = {"size": 1, "query": {"ids": {"values": [mapping.SELF_TEST_ID]}}}
    answer = server.search(f"/{name}/_search", body, doing="reading the self-test")
    hits = answer["hits"]["hits"]
    return dict(hits[0].get("_source", {})) if hits else None


def check_bit_order(
    server: Server, address: Address, name: str, bits: int, layout: Layout, strategy: Strategy
) -> SelfTest:
    """Search the self-test document, and compare its distance and code with the expected ones.

    Raises IndexMismatch if they differ, and if the document is missing without being hidden.
    """
    expected = mapping.self_test_code(bits)
    query = BinaryCodes.from_hex(["0f" * (bits // 8)])
    search = partial(_find_self_test, server, name, query, layout, strategy)
    # Without the boost of other searches, a score above 1 shows document-level security.
    hit = search(boost=1.0)
    is_restricted = hit["_score"] > 1 if hit else hides_documents(server, name)
    waiting = poll(CREATION_TIMEOUT)
    while hit is None and not is_restricted:
        if not waiting.wait():
            raise IndexMismatch(
                f"{address} has lost its self-test document {mapping.SELF_TEST_ID!r}: "
                "restore it with xmodal-opensearch doctor --repair"
            )
        hit = search(boost=1.0)
    if hit is None:
        return SelfTest(False, True)
    scored = search(boost=codec.SCALE) if is_restricted else None
    score = scored["_score"] if scored else codec.SCALE * hit["_score"]
    stored = hit["_source"].get(mapping.SELF_TEST_FIELD)
    distance = int(expected.distances(query)[0, 0])
    if codec.to_key(score) != distance or (
        stored is not None and layout.codes([stored], bits) != expected
    ):
        raise IndexMismatch(
            f"{address}: the self-test document has unexpected bits, expected bit order "
            f"{mapping.BIT_ORDER!r}: load the index again with this version"
        )
    return SelfTest(True, is_restricted)


def check_unmasked(
    server: Server, address: Address, name: str, bits: int, layout: Layout, strategy: Strategy
) -> None:
    """Search stored codes by themselves; raise IndexMismatch if the search has other codes.

    This is so for a user from whom the security plugin masks a code field: it changes or hides the
    values that searches compare, and not those of ``_source``.
    """
    if layout.engine is not None or strategy.build is None:
        return  # the values of these layouts are never masked
    body = {
        "size": SAMPLE,
        "query": {"exists": {"field": mapping.ID}},
        "_source": [mapping.field_of(modality) for modality in MODALITIES],
    }
    answer = server.search(f"/{name}/_search", body, doing="testing the codes")
    for modality in MODALITIES:
        field = mapping.field_of(modality)
        hit = next((one for one in answer["hits"]["hits"] if one["_source"].get(field)), None)
        if hit is None:
            continue
        code = QueryCodes(layout.codes([hit["_source"][field]], bits))
        only = [{"ids": {"values": [hit["_id"]]}}]
        body = build.search_body(strategy.build(field, code, layout, only, None), 1)
        try:
            found = server.search(f"/{name}/_search", body, doing="testing the codes")
            scores = [one["_score"] for one in found["hits"]["hits"]]
        except ServerFailure as error:
            if error.status != 400:
                raise
            scores = []
        if not scores or np.float32(scores[0]) != np.float32(codec.SCALE):
            raise IndexMismatch(
                f"{address}: a search does not find the {modality} code that document "
                f"{hit['_id']!r} shows: if a role of the user masks {field} (masked_fields), hide "
                "the field instead, by field-level security"
            )


def hides_documents(server: Server, name: str) -> bool:
    """Return whether document-level security may hide documents of an index from the user.

    The security plugin does not profile a search then; its error names the reason.
    """
    body = {"size": 0, "query": {"match_none": {}}, "profile": True}
    try:
        server.search(f"/{name}/_search", body, doing="looking for document-level security")
    except ServerFailure as error:
        if "DLS" not in error.reason:
            raise
        return True
    return False


def _find_self_test(
    server: Server,
    name: str,
    query: BinaryCodes,
    layout: Layout,
    strategy: Strategy,
    *,
    boost: float,
) -> dict[str, Any] | None:
    """Return the hit of the self-test document, or None if the user does not find it."""
    only = [{"ids": {"values": [mapping.SELF_TEST_ID]}}]
    if strategy.build is None:
        found = build.by_knn(mapping.SELF_TEST_FIELD, query, only, 1)
    else:
        found = strategy.build(mapping.SELF_TEST_FIELD, QueryCodes(query), layout, only, None)
    body = {"size": 1, "query": {"bool": {"must": [found], "boost": boost}}}
    answer = server.search(f"/{name}/_search", body, doing="testing the bit order")
    hits: list[dict[str, Any]] = answer["hits"]["hits"]
    return hits[0] if hits else None

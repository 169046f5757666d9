"""Indexes made by an older version: restored on a node, opened and searched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmodal.codes import BinaryCodes
from xmodal_opensearch.index.store import open_opensearch

OLD = Path(__file__).parents[2] / "artefacts" / "2026-11"
EXPECTED: dict[str, Any] = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))
INDEXES: dict[str, Any] = json.loads((OLD / "opensearch.json").read_text(encoding="utf-8"))
QUERIES = BinaryCodes.from_hex(EXPECTED["index"]["queries"])
FINGERPRINT = EXPECTED["index"]["encoder"]


@pytest.fixture
def restored(address: Callable[..., str], rest: Callable[..., Any]) -> Callable[[str], str]:
    """``restored("long")`` -> the address of a copy of an old index on the node."""

    def restore(kind: str) -> str:
        old, uri = INDEXES[kind], address()
        alias = uri.rpartition("/")[2]
        name = f"{alias}-000001" if old["aliases"] else alias
        aliases = {alias: {"is_write_index": True}} if old["aliases"] else {}
        body = {"settings": old["settings"], "mappings": old["mappings"], "aliases": aliases}
        rest("PUT", f"/{name}", body)
        for document in old["documents"]:
            rest("PUT", f"/{name}/_doc/{document['_id']}", document["_source"])
        rest("POST", f"/{name}/_refresh")
        return uri

    return restore


@pytest.mark.parametrize("kind", ["script", "long", "lucene-hnsw"])
def test_old_index_returns_the_same_hits(kind: str, restored: Callable[[str], str]) -> None:
    expected = EXPECTED["index"]
    with open_opensearch(restored(kind), bits=32, fingerprint=FINGERPRINT) as index:
        assert len(index) == expected["documents"]
        for search in expected["searches"]:
            options = {name: value for name, value in search.items() if name != "found"}
            hits = index.search(QUERIES, **options)
            assert [[[hit.id, hit.distance] for hit in row] for row in hits] == search["found"]
            for hit in (hit for row in hits for hit in row):
                assert hit.fields == expected["fields"][hit.id]
        index.add(["new"], text=QUERIES[2:3], fields=[{"count": 1}])
        assert index.search(QUERIES[2:3], 1, target="text")[0][0].id == "new"


def test_old_enriched_index_returns_the_same_hits(restored: Callable[[str], str]) -> None:
    with open_opensearch(restored("enriched"), bits=32, fingerprint=FINGERPRINT) as index:
        hits = index.search(QUERIES, 10, target="text")
        assert [[[hit.id, hit.distance] for hit in row] for row in hits] == EXPECTED["enriched"]
        assert hits[0][0].fields["title"] in EXPECTED["texts"]

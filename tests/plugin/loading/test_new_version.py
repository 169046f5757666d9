"""New version behind an alias: searches see the old version, then the new one, never a mix."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.filled import BITS, as_stored, batch, random_codes, settings_of, stored_documents

from xmodal.errors import ConfigError, IndexFailure, IndexMismatch
from xmodal.index.contract import Hits
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.aliases import versions_of
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import KEY, check_count, load
from xmodal_opensearch.loading.new_version import open_next_version, publish

Rest = Callable[..., Any]
OLD, NEW = "0" * 16, "1" * 16


class Killed(BaseException):
    """Simulates the end of the process."""


def next_of(uri: str, fingerprint: str | None = NEW, source: str = "a") -> OpenSearchIndex:
    address = parse_address(uri)
    return open_next_version(Server(address), address, BITS, fingerprint, source)


def first_version(uri: str, tmp_path: Path, one: DocumentBatch) -> OpenSearchIndex:
    index = open_opensearch(uri, bits=BITS, fingerprint=OLD, create=True)
    load(index, [one], checkpoints=tmp_path)
    return index


def alias_of(uri: str) -> str:
    return parse_address(uri).index


def pairs(hits: Hits) -> list[list[tuple[str, int]]]:
    return [[(hit.id, hit.distance) for hit in row] for row in hits]


def test_searches_see_the_old_version_then_the_new_one(
    address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri = address()
    old, new = batch(300, seed=1), batch(3000, seed=2)
    first = first_version(uri, tmp_path, old)
    local_indexes = {}
    for seed, documents in ((1, old), (2, new)):
        local_indexes[seed] = HammingIndex(BITS)
        local_indexes[seed].add(documents)
    queries = random_codes(3, 99)
    expected = {
        seed: pairs(local.search(queries, 20, target="image"))
        for seed, local in local_indexes.items()
    }
    opened: list[int | str] = []
    requested: list[int | str] = []
    stop = threading.Event()

    def search() -> None:
        """Open the alias and search, repeatedly."""
        while not stop.is_set():
            try:
                with open_opensearch(uri) as index:
                    found = pairs(index.search(queries, 20, target="image"))
                    opened.append(next((s for s, hits in expected.items() if hits == found), "mix"))
            except Exception as error:
                opened.append(repr(error))

    def through_the_alias() -> None:
        """Count documents by seed in one request to the alias, repeatedly."""
        while not stop.is_set():
            body = {"aggs": {"seeds": {"terms": {"field": "seed"}}}, "track_total_hits": True}
            answer = rest("POST", f"/{alias_of(uri)}/_search", body)
            buckets = answer["aggregations"]["seeds"]["buckets"]
            counts = {int(bucket["key"]): bucket["doc_count"] for bucket in buckets}
            requested.append(next(iter(counts)) if counts in ({1: 300}, {2: 3000}) else f"{counts}")

    threads = [threading.Thread(target=one) for one in (search, through_the_alias)]
    for thread in threads:
        thread.start()
    index = next_of(uri)
    load(index, [new], checkpoints=tmp_path)
    check_count(index, 3000, exactly=True)
    assert {*opened, *requested} == {1}
    assert publish(index, alias_of(uri), delete_old=False) == [first.handle.name]
    end = time.monotonic() + 60
    while not (opened[-1] == requested[-1] == 2) and time.monotonic() < end:
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    for versions in (opened, requested):
        assert set(versions) == {1, 2}
        assert versions == sorted(versions, key=str)  # the old version never follows the new one

    # An open handle continues to search its version.
    assert pairs(first.search(queries, 20, target="image")) == expected[1]
    assert first.handle.name == f"{alias_of(uri)}-000001"
    assert index.handle.name == f"{alias_of(uri)}-000002"
    with pytest.raises(IndexMismatch, match=f"encoder {NEW}, .* {OLD}"):
        open_opensearch(uri, fingerprint=OLD)
    assert KEY not in index.handle.read_meta()
    first.close()
    index.close()


def test_new_version_keeps_mappings_and_layout(
    address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri = address(strategy="lucene-hnsw")
    first = first_version(uri, tmp_path, batch(5))
    fields = {
        "caption": {"type": "text", "analyzer": "english"},
        "day": {"type": "date", "format": "yyyy"},
        "shop": {"properties": {"city": {"type": "keyword", "ignore_above": 9}}},
    }
    rest("PUT", f"/{first.handle.name}/_mapping", {"properties": fields})
    plain = uri.partition("?")[0]
    index = next_of(plain)
    name = index.handle.name
    properties = rest("GET", f"/{name}/_mapping")[name]["mappings"]["properties"]
    assert {field: properties[field] for field in fields} == fields
    assert properties["seed"]["type"] == "keyword"
    assert index.handle.layout.name == "lucene-hnsw"
    assert next_of(f"{plain}?strategy=long").handle.layout.name == "long"
    assert next_of(uri).handle.name == name


def test_killed_load_continues_in_the_same_version(
    address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri = address()
    first_version(uri, tmp_path, batch(5)).close()

    def die(what: str, done: int, total: int) -> None:
        if done >= 2000:
            raise Killed

    documents = batch(6000, seed=2)
    killed = next_of(uri)
    with pytest.raises(Killed):
        load(killed, [documents], checkpoints=tmp_path, workers=1, progress=die)
    again = next_of(uri)
    assert again.handle.name == killed.handle.name
    assert load(again, [documents], checkpoints=tmp_path).stored == 4000
    publish(again, alias_of(uri), delete_old=True)
    assert versions_of(again.handle.server, alias_of(uri)) == {killed.handle.name: True}
    assert stored_documents(rest, again.handle.name) == as_stored(documents)
    assert settings_of(rest, again.handle.name)["refresh_interval"] is None


def test_unfinished_version_of_another_source_is_not_used(
    address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri = address()
    first = first_version(uri, tmp_path, batch(5))
    names = [
        next_of(uri, fingerprint, source).handle.name.rpartition("-")[2]
        for fingerprint, source in ((NEW, "a"), (NEW, "b"), (OLD, "a"), (None, "a"), (NEW, "a"))
    ]
    assert names == ["000002", "000003", "000004", "000005", "000002"]
    assert next_of(uri + "?strategy=long").handle.name.endswith("000006")

    # The same source with other documents: detected before the version is published.
    index = next_of(uri)
    load(index, [batch(10, name="old")], checkpoints=tmp_path)
    again = next_of(uri)
    load(again, [batch(10)], checkpoints=tmp_path)
    with pytest.raises(IndexFailure, match="20 documents, expected 10"):
        check_count(again, 10, exactly=True)
    assert rest("GET", f"/{alias_of(uri)}/_count")["count"] == 5 + 1

    # A published version is finished, also after the alias moved back to an older one.
    publish(again, alias_of(uri), delete_old=False)
    publish(first, alias_of(uri), delete_old=False)
    assert next_of(uri).handle.name.endswith("000007")


def test_new_version_needs_an_alias_of_xmodal(address: Callable[..., str], rest: Rest) -> None:
    uri = address()
    rest("PUT", f"/{alias_of(uri)}", {})
    with pytest.raises(ConfigError, match="is an index, expected an alias"):
        next_of(uri)
    other = address()
    rest("PUT", f"/{alias_of(other)}-000001", {"aliases": {alias_of(other): {}}})
    with pytest.raises(IndexMismatch, match="has no codes"):
        next_of(other)
    # an enriched rollover index of the user
    meta = {"xmodal": {"mapping_version": 1, "bits": 64, "added": True, "encoder": OLD}}
    rest("PUT", f"/{alias_of(other)}-000001/_mapping", {"_meta": meta})
    with pytest.raises(ConfigError, match="your own documents"):
        next_of(other)


def test_first_version(address: Callable[..., str], rest: Rest, tmp_path: Path) -> None:
    uri = address()
    index = next_of(uri)
    with pytest.raises(IndexFailure, match="no index"):
        open_opensearch(uri)
    load(index, [batch(5)], checkpoints=tmp_path)
    assert publish(index, alias_of(uri), delete_old=True) == []
    with open_opensearch(uri, bits=BITS, fingerprint=NEW) as opened:
        assert len(opened) == 5 and opened.handle.name.endswith("-000001")

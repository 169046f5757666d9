"""A new version behind an alias: people search the old one completely, then the new one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.filled import BITS, batch, kept, random_codes, settings_of, wanted

from xmodal.errors import ConfigError, IndexFailure, IndexMismatch
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
    """The end of a process, as far as one process can play it."""


def next_of(uri: str, encoder: str | None = NEW, source: str = "a") -> OpenSearchIndex:
    address = parse_address(uri)
    return open_next_version(Server(address), address, BITS, encoder, source)


def first_version(uri: str, tmp_path: Path, one: DocumentBatch) -> OpenSearchIndex:
    index = open_opensearch(uri, bits=BITS, encoder=OLD, create=True)
    load(index, [one], checkpoints=tmp_path)
    return index


def alias_of(uri: str) -> str:
    return parse_address(uri).index


def test_searchers_see_the_old_version_then_the_new_one(
    address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri = address()
    old, new = batch(300, seed=1), batch(3000, seed=2)
    handle = first_version(uri, tmp_path, old)
    locals_ = {}
    for one in (old, new):
        locals_[one.fields[0]["seed"]] = local = HammingIndex(BITS)
        local.add(one)
    queries = random_codes(3, 99)
    right = {
        seed: [[(hit.id, hit.distance) for hit in hits] for hits in found]
        for seed, found in ((s, i.search(queries, 20, target="image")) for s, i in locals_.items())
    }
    opened: list[int | str] = []
    asked: list[int | str] = []
    stop = threading.Event()

    def search() -> None:
        """As people do it: through the alias, asking for the ids by our own query."""
        while not stop.is_set():
            try:
                with open_opensearch(uri) as index:  # an opening finds the one or the other
                    found = index.search(queries, 20, target="image")
                    answer = [[(hit.id, hit.distance) for hit in hits] for hits in found]
                    opened.append(next((s for s, one in right.items() if one == answer), "mix"))
            except Exception as error:
                opened.append(repr(error))

    def through_the_alias() -> None:
        """One request that names the alias: how many documents, of how many versions."""
        while not stop.is_set():
            body = {"aggs": {"seeds": {"terms": {"field": "seed"}}}, "track_total_hits": True}
            answer = rest("POST", f"/{alias_of(uri)}/_search", body)
            buckets = answer["aggregations"]["seeds"]["buckets"]
            counts = {int(one["key"]): one["doc_count"] for one in buckets}
            asked.append(next(iter(counts)) if counts in ({1: 300}, {2: 3000}) else f"{counts}")

    threads = [threading.Thread(target=one) for one in (search, through_the_alias)]
    for thread in threads:
        thread.start()
    index = next_of(uri)
    load(index, [new], checkpoints=tmp_path)
    check_count(index, 3000, exactly=True)
    assert {*opened, *asked} == {1}
    assert publish(index, alias_of(uri), delete_old=False) == [handle.name]
    end = time.monotonic() + 60
    while not (opened[-1] == asked[-1] == 2) and time.monotonic() < end:
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    for seen in (opened, asked):
        assert set(seen) == {1, 2}
        assert seen == sorted(seen, key=str)  # once the new one, never again the old one

    # A handle that was opened before goes on with what it can compare.
    assert [[(hit.id, hit.distance) for hit in hits]
            for hits in handle.search(queries, 20, target="image")] == right[1]  # fmt: skip
    assert (
        handle.name == f"{alias_of(uri)}-000001" and index.handle.name == f"{alias_of(uri)}-000002"
    )
    with pytest.raises(IndexMismatch, match=f"was filled by encoder {NEW}, this is encoder {OLD}"):
        open_opensearch(uri, encoder=OLD)
    assert KEY not in index.handle.read_meta()
    for one in (handle, index):
        one.close()


def test_the_fields_of_the_user_stay_as_they_were_mapped(
    address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri = address(strategy="lucene-hnsw")
    handle = first_version(uri, tmp_path, batch(5))
    mine = {
        "caption": {"type": "text", "analyzer": "english"},
        "day": {"type": "date", "format": "yyyy"},
        "shop": {"properties": {"city": {"type": "keyword", "ignore_above": 9}}},
    }
    rest("PUT", f"/{handle.name}/_mapping", {"properties": mine})
    plain = uri.partition("?")[0]
    index = next_of(plain)
    properties = rest("GET", f"/{index.handle.name}/_mapping")[index.handle.name]["mappings"][
        "properties"
    ]
    assert {name: properties[name] for name in mine} == mine
    assert properties["seed"]["type"] == "keyword"
    assert index.handle.layout.name == "lucene-hnsw"  # as it was; the address names no way
    assert next_of(f"{plain}?strategy=long").layout.name == "long"
    assert next_of(uri).name == index.handle.name


def test_a_killed_load_goes_on_in_the_same_version(
    address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri = address()
    first_version(uri, tmp_path, batch(5)).close()

    def die(what: str, done: int, total: int) -> None:
        if done >= 2000:
            raise Killed

    one = batch(6000, seed=2)
    killed = next_of(uri)
    with pytest.raises(Killed):
        load(killed, [one], checkpoints=tmp_path, workers=1, progress=die)
    again = next_of(uri)
    assert again.handle.name == killed.name
    assert load(again, [one], checkpoints=tmp_path).stored == 4000
    publish(again, alias_of(uri), delete_old=True)
    assert versions_of(again.handle.server, alias_of(uri)) == {killed.name: True}
    own = wanted(one)
    assert kept(rest, again.handle.name) == own
    assert settings_of(rest, again.handle.name)["refresh_interval"] is None


def test_an_unfinished_version_of_something_else_is_not_taken(
    address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri = address()
    handle = first_version(uri, tmp_path, batch(5))
    names = [
        next_of(uri, encoder, source).name.rpartition("-")[2]
        for encoder, source in ((NEW, "a"), (NEW, "b"), (OLD, "a"), (None, "a"), (NEW, "a"))
    ]
    assert names == ["000002", "000003", "000004", "000005", "000002"]
    assert next_of(uri + "?strategy=long").name.endswith("000006")

    # The same source, whose content is another now: told before anybody sees a mix.
    index = next_of(uri)
    load(index, [batch(10, name="old")], checkpoints=tmp_path)
    again = next_of(uri)
    load(again, [batch(10)], checkpoints=tmp_path)
    with pytest.raises(IndexFailure, match="20 documents can be found, 10 were stored: an earlier"):
        check_count(again, 10, exactly=True)
    assert rest("GET", f"/{alias_of(uri)}/_count")["count"] == 5 + 1

    # A finished version, to which somebody went back from a newer one, is no unfinished one.
    publish(again, alias_of(uri), delete_old=False)
    publish(handle, alias_of(uri), delete_old=False)
    assert next_of(uri).name.endswith("000007")


def test_only_an_alias_of_ours_can_move(address: Callable[..., str], rest: Rest) -> None:
    uri = address()
    rest("PUT", f"/{alias_of(uri)}", {})
    with pytest.raises(ConfigError, match="is an index, not an alias that could be moved"):
        next_of(uri)
    other = address()
    rest("PUT", f"/{alias_of(other)}-000001", {"aliases": {alias_of(other): {}}})
    with pytest.raises(IndexMismatch, match="holds no codes of ours"):
        next_of(other)
    # somebody's own rollover index, to which codes were added
    meta = {"xmodal": {"mapping_version": 1, "bits": 64, "added": True, "encoder": OLD}}
    rest("PUT", f"/{alias_of(other)}-000001/_mapping", {"_meta": meta})
    with pytest.raises(ConfigError, match="holds documents of your own, to which codes were added"):
        next_of(other)


def test_the_very_first_version(address: Callable[..., str], rest: Rest, tmp_path: Path) -> None:
    uri = address()
    index = next_of(uri)
    with pytest.raises(IndexFailure, match="no index"):
        open_opensearch(uri)
    load(index, [batch(5)], checkpoints=tmp_path)
    assert publish(index, alias_of(uri), delete_old=True) == []
    with open_opensearch(uri, bits=BITS, encoder=NEW) as opened:
        assert len(opened) == 5 and opened.name.endswith("-000001")

"""The server plugin on a node: memory, background loading, timeouts, merges, profile.

Same fixtures and helpers as test_hamming_query.py.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from support.hamming_server import (
    BY_ID,
    Model,
    Refused,
    Server,
    bulk,
    check,
    create,
    found,
    lines,
    put,
)


def wait(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether the condition becomes true within a number of seconds."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return met


def fill(
    server: Server, name: str, n: int, bits: int = 64, storage: str = "flat", **more: Any
) -> tuple[Model, np.random.Generator]:
    """Create an index with ``n`` documents of random codes."""
    rng = np.random.default_rng(n + bits)
    create(server, name, bits, storage, **more)
    model = Model(bits)
    put(rng, model, [f"{i:05d}" for i in range(n)])
    keys = list(model.tag)
    for at in range(0, n, 5000):
        bulk(server, name, lines(model, keys[at : at + 5000]))
    server("POST", f"{name}/_refresh")
    return model, rng


@pytest.fixture
def setting(server: Server) -> Iterator[Callable[[str, Any], None]]:
    """Set a cluster setting until the end of the test."""
    changed = []

    def put_setting(key: str, value: Any) -> None:
        changed.append(key)
        server("PUT", "_cluster/settings", {"transient": {key: value}})

    yield put_setting
    server("PUT", "_cluster/settings", {"transient": dict.fromkeys(changed)})


@pytest.mark.parametrize("storage", ["flat", "faiss"])
def test_memory_is_released_with_the_index(server: Server, name: str, storage: str) -> None:
    before = server.stats()
    model, rng = fill(server, name, 3000, storage=storage)
    check(server, name, model, rng)
    query = {"hamming": {"fields": ["image_code", "text_code"], "code": "00" * 8}}
    server.search(name, query)
    during = server.stats()
    assert during["cache_entries"] > before["cache_entries"]
    # 3,000 codes in blocks of 1,024 of 8 bytes (dense), and a third of that (sparse).
    assert 8 * 4000 <= during["size_in_bytes"] - before["size_in_bytes"] <= 8 * 8000
    assert during["estimated"] == during["size_in_bytes"]
    server("DELETE", name)
    keys = ("cache_entries", "size_in_bytes", "estimated")
    assert wait(lambda: all(server.stats()[k] == before[k] for k in keys)), server.stats()


def test_warmup_loads_all_segments_and_later_new_ones(server: Server, name: str) -> None:
    model, rng = fill(server, name, 500)
    before = server.stats()
    answer = server("POST", f"_plugins/_hamming/warmup/{name}?fields=image_code")
    assert (answer["cache_entries"], answer["refused_by_breaker"]) == (1, 0)
    assert answer["_shards"]["failed"] == 0
    assert server("GET", f"_plugins/_hamming/warmup/{name}")["cache_entries"] == 2
    former = server("POST", f"{name}/_plugins/_hamming/warm")
    assert former["columns"] == former["cache_entries"] == 2
    query = {"hamming": {"field": "image_code", "code": "00" * 8}}
    server.search(name, query)
    after = server.stats()
    assert after["loaded"] == before["loaded"] + 2
    assert (after["misses"], after["hits"]) == (before["misses"], before["hits"] + 1)
    keys = [f"{i:05d}" for i in range(500, 600)]
    put(rng, model, keys)
    bulk(server, name, lines(model, keys), refresh=True)
    assert wait(lambda: server.stats()["loaded"] == before["loaded"] + 4)
    check(server, name, model, rng)
    assert server.stats()["misses"] == before["misses"]


def test_warmup_of_a_missing_index_or_other_field_is_refused(server: Server, name: str) -> None:
    create(server, name, 16)
    for path, status in ((f"{name}?fields=tag", 400), ("none-x", 404)):
        with pytest.raises(Refused) as refused:
            server("POST", f"_plugins/_hamming/warmup/{path}")
        assert refused.value.status == status


def test_load_always_loads_without_a_query(
    server: Server, name: str, setting: Callable[[str, Any], None]
) -> None:
    setting("hamming.load", "always")
    before = server.stats()
    fill(server, name, 100)
    assert wait(lambda: server.stats()["cache_entries"] >= before["cache_entries"] + 2)
    with pytest.raises(Refused) as refused:
        setting("hamming.load", "sometimes")
    assert refused.value.status == 400


@pytest.mark.parametrize("storage", ["flat", "faiss", "lucene"])
def test_tripped_breaker_does_not_fail_a_search(
    server: Server, name: str, setting: Callable[[str, Any], None], storage: str
) -> None:
    model, rng = fill(server, name, 4000, storage=storage)
    check(server, name, model, rng)
    start = server.stats()
    setting("hamming.breaker.limit", "1kb")
    assert server.stats()["cache_entries"] == 0
    for _ in range(4):
        check(server, name, model, rng)
    end = server.stats()
    assert (end["cache_entries"], end["estimated"]) == (0, 0)
    assert end["fallbacks"] > start["fallbacks"]
    assert end["tripped"] > start["tripped"]
    setting("hamming.breaker.limit", "10%")
    check(server, name, model, rng)
    assert server.stats()["cache_entries"] > 0


@pytest.mark.parametrize(
    ("mode", "partition"), [("none", "segment"), ("all", "segment"), ("all", "force")]
)
def test_concurrent_segment_search(
    server: Server, name: str, setting: Callable[[str, Any], None], mode: str, partition: str
) -> None:
    """Several threads per request, each with its own segments or (force) with parts of one."""
    setting("search.concurrent_segment_search.mode", mode)
    setting("search.concurrent_segment_search.partition_strategy", partition)
    model, rng = fill(server, name, 6000)
    for _ in range(5):
        check(server, name, model, rng)
        keys = [f"{i:05d}" for i in rng.integers(0, 8000, 600)]
        keys = sorted(set(keys))
        put(rng, model, keys)
        bulk(server, name, lines(model, keys), refresh=True)
    server("POST", f"{name}/_forcemerge?max_num_segments=1")
    server("POST", f"{name}/_refresh")
    for _ in range(3):
        check(server, name, model, rng)


def slow(bits: int) -> dict[str, Any]:
    """A slow query: 256 codes, two fields."""
    rng = np.random.default_rng(0)
    codes = [rng.bytes(bits // 8).hex() for _ in range(256)]
    return {"hamming": {"fields": ["image_code", "text_code"], "codes": codes}}


def test_timeout_stops_the_scan(server: Server, name: str) -> None:
    fill(server, name, 30_000, bits=512)
    server("POST", f"{name}/_forcemerge?max_num_segments=1")
    server("POST", f"{name}/_refresh")
    server.search(name, slow(512), size=1)
    complete = server.search(name, slow(512), size=1)
    assert not complete["timed_out"]
    cut = server.search(name, slow(512), size=1, timeout="2ms")
    assert cut["timed_out"]
    assert cut["took"] < complete["took"]


def test_cancelled_request_stops(server: Server, name: str) -> None:
    fill(server, name, 30_000, bits=512)
    server.search(name, slow(512), size=1)
    stopped = threading.Event()

    def cancel() -> None:
        while not stopped.is_set():
            path = "_tasks?detailed=true&actions=indices:data/read/search"
            for node in server("GET", path)["nodes"].values():
                for task, details in node["tasks"].items():
                    if name in details["description"]:
                        server("POST", f"_tasks/{task}/_cancel")

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        with pytest.raises((Refused, AssertionError)) as refused:
            for _ in range(50):
                server.search(name, slow(512), size=1)
    finally:
        stopped.set()
        thread.join()
    assert "cancelled" in str(refused.value)


def test_searches_during_writes_merges_and_deletion(server: Server, name: str) -> None:
    """Results stay sorted during writes, are exact afterwards, and all memory is released."""
    before = server.stats()
    model, rng = fill(server, name, 3000, shards=2)
    done = threading.Event()
    query = {"hamming": {"fields": ["image_code", "text_code"], "code": "00" * 8}}

    def search() -> int:
        n = 0
        while not done.is_set():
            hits = found(server.search(name, query, sort=BY_ID, size=100))
            assert hits == sorted(hits)
            n += 1
        return n

    with ThreadPoolExecutor(4) as pool:
        searches = [pool.submit(search) for _ in range(4)]
        for _ in range(12):
            keys = [f"{i:05d}" for i in rng.integers(0, 4000, 300)]
            put(rng, model, keys)
            bulk(server, name, lines(model, keys), refresh=True)
            if rng.random() < 0.4:
                server("POST", f"{name}/_forcemerge?max_num_segments=1")
        done.set()
        assert all(future.result() > 0 for future in searches)
    server("POST", f"{name}/_refresh")
    check(server, name, model, rng)
    server("POST", f"{name}/_close")
    sums = ("cache_entries", "size_in_bytes", "estimated")
    assert wait(lambda: all(server.stats()[k] == before[k] for k in sums)), server.stats()
    server("POST", f"{name}/_open?wait_for_active_shards=all")
    check(server, name, model, rng)
    server("DELETE", name)
    assert wait(lambda: all(server.stats()[k] == before[k] for k in sums)), server.stats()


def test_profile_describes_the_query(server: Server, name: str) -> None:
    model, _ = fill(server, name, 2000)
    code = np.zeros(8, np.uint8)
    red = {"term": {"tag": "red"}}
    query = {"hamming": {"field": "image_code", "code": "00" * 8, "filter": red}}
    answer = server.search(name, query, profile=True, sort=BY_ID)
    assert found(answer) == model.distances([code], ("image",), "red")[:10]
    profile = json.dumps(answer["profile"])
    assert '"type": "HammingQuery"' in profile
    assert "hamming(image_code ~ 0000000000000000 if " in profile


def test_query_inside_other_queries(server: Server, name: str) -> None:
    model, rng = fill(server, name, 2000, bits=16)
    code = rng.integers(0, 256, 2).astype(np.uint8)
    expected = model.distances([code])
    query = {"hamming": {"field": "image_code", "code": code.tobytes().hex()}}
    near = {"hamming": {**query["hamming"], "max_distance": 4}}
    within = [pair for pair in expected if pair[0] <= 4]
    for outer in (
        {"dis_max": {"queries": [query, near]}},
        {"function_score": {"query": query}},
        {"bool": {"should": [query]}},
        {"bool": {"must": [query], "should": [{"term": {"tag": {"value": "red", "boost": 0}}}]}},
        {"script_score": {"query": query, "script": {"source": "_score"}}},
    ):
        assert found(server.search(name, outer, sort=BY_ID, size=50)) == expected[:50], outer
    both = {"bool": {"must": [near, {"term": {"tag": {"value": "red", "boost": 0}}}]}}
    red = [pair for pair in within if model.tag[pair[1]] == "red"]
    assert found(server.search(name, both, sort=BY_ID, size=50)) == red[:50]


def test_search_after_returns_every_page(server: Server, name: str) -> None:
    model, rng = fill(server, name, 3000, bits=16, shards=2)
    code = rng.integers(0, 256, 2).astype(np.uint8)
    query = {"hamming": {"field": "image_code", "code": code.tobytes().hex()}}
    pages: list[tuple[int, str]] = []
    after: dict[str, Any] = {}
    while True:
        answer = server.search(name, query, sort=BY_ID, size=300, track_total_hits=False, **after)
        if not answer["hits"]["hits"]:
            break
        pages += found(answer)
        after = {"search_after": answer["hits"]["hits"][-1]["sort"]}
    assert pages == model.distances([code])


def test_documents_with_nested_objects(server: Server, name: str) -> None:
    """Nested objects are Lucene documents, which shifts document numbers but not results."""
    create(server, name, 16)
    server("PUT", f"{name}/_mapping", {"properties": {"parts": {"type": "nested"}}})
    rng = np.random.default_rng(2)
    model = Model(16)
    put(rng, model, [f"{i:04d}" for i in range(400)])
    out = []
    for line in lines(model, list(model.tag)).splitlines():
        document = json.loads(line)
        if "id" in document:
            document["parts"] = [{"n": i} for i in range(int(document["id"]) % 5)]
        out.append(json.dumps(document))
    bulk(server, name, "\n".join(out) + "\n", refresh=True)
    for _ in range(5):
        check(server, name, model, rng)

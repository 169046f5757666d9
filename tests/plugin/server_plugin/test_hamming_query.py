"""The ``hamming`` query of the server plugin on a real node, compared with numpy.

``plugin_url`` is the address of a node with opensearch-knn and opensearch-hamming.
"""

from __future__ import annotations

import base64
import json
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
    code_field,
    create,
    found,
    lines,
    put,
)

STORAGES = ["flat", "faiss", "lucene"]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("bits", [8, 64, 72, 128, 256, 512])
def test_query_agrees_with_numpy_after_updates_deletes_and_merges(
    server: Server, name: str, bits: int, storage: str
) -> None:
    rng = np.random.default_rng(bits + len(storage))
    create(server, name, bits, storage, shards=1 + bits % 3)
    model = Model(bits)
    for step in range(14):
        keys = [f"{i:04d}" for i in rng.choice(1500, size=int(rng.integers(1, 300)), replace=False)]
        if rng.random() < 0.7 or step == 0:
            # Some segments have few codes, which selects the sparse layout.
            put(rng, model, keys, *((0.9, 0.3) if rng.random() < 0.7 else (0.05, 1.0)))
            bulk(server, name, lines(model, keys))
        else:
            keys = [key for key in keys if key in model.tag]
            for key in keys:
                for part in (model.image, model.text, model.tag):
                    part.pop(key, None)
            if keys:
                deletions = "\n".join(json.dumps({"delete": {"_id": key}}) for key in keys) + "\n"
                bulk(server, name, deletions)
        server("POST", f"{name}/_refresh")
        if rng.random() < 0.25:
            server("POST", f"{name}/_forcemerge?max_num_segments=1")
            server("POST", f"{name}/_refresh")
        check(server, name, model, rng)


@pytest.mark.parametrize("storage", STORAGES)
def test_query_of_a_large_segment_with_ties_at_every_rank(
    server: Server, name: str, storage: str
) -> None:
    """Enough documents that the competitive distance decreases within a segment; a dense filter."""
    rng = np.random.default_rng(5)
    create(server, name, 16, storage)
    model = Model(16)
    keys = [f"{i:05d}" for i in rng.permutation(30_000)]
    put(rng, model, keys)
    for at in range(0, len(keys), 5000):
        bulk(server, name, lines(model, keys[at : at + 5000]))
    if storage != "lucene":  # building a graph of so many equal codes is slow
        server("POST", f"{name}/_forcemerge?max_num_segments=1")
    server("POST", f"{name}/_refresh")
    for _ in range(6):
        check(server, name, model, rng)


def test_query_accepts_codes_as_hex_base64_and_bytes(server: Server, name: str) -> None:
    rng = np.random.default_rng(1)
    create(server, name, 64)
    model = Model(64)
    put(rng, model, [f"{i:04d}" for i in range(200)])
    bulk(server, name, lines(model, list(model.tag)), refresh=True)
    code = rng.integers(0, 256, 8).astype(np.uint8)
    expected = model.distances([code])[:10]
    for text in (
        code.tobytes().hex(),
        code.tobytes().hex().upper(),
        base64.b64encode(code.tobytes()).decode(),
        code.view(np.int8).tolist(),
    ):
        query = {"hamming": {"field": "image_code", "code": text}}
        assert found(server.search(name, query, sort=BY_ID)) == expected
        query = {"hamming": {"fields": ["image_code"], "codes": [text, text]}}
        assert found(server.search(name, query, sort=BY_ID)) == expected


def store_four(server: Server, name: str) -> None:
    """Store documents at distance 0, 1 and 16 of the code 0000, and one without a code."""
    create(server, name, 16)
    model = Model(16, tag=dict.fromkeys("1234", "red"))
    for key, code in (("1", [0, 0]), ("2", [0, 128]), ("3", [255, 255])):
        model.image[key] = np.array(code, np.uint8)
    bulk(server, name, lines(model, list("1234")), refresh=True)


ZERO: dict[str, Any] = {"field": "image_code", "code": "0000"}


def test_max_distance_filters_in_every_context(server: Server, name: str) -> None:
    store_four(server, name)
    near = {"hamming": {**ZERO, "max_distance": 1}}

    def ids(query: dict[str, Any], **more: Any) -> list[str]:
        return [h["_id"] for h in server.search(name, query, sort=["id"], **more)["hits"]["hits"]]

    assert ids(near) == ["1", "2"]
    assert ids({"bool": {"filter": [near]}}) == ["1", "2"]
    assert ids({"bool": {"must": [near], "must_not": [{"term": {"n": 2}}]}}) == ["1"]
    assert ids({"bool": {"should": [near, {"term": {"n": 3}}]}}) == ["1", "2", "3"]
    assert ids({"constant_score": {"filter": near}}) == ["1", "2"]
    assert ids({"hamming": {**ZERO, "max_distance": 0}}) == ["1"]
    assert ids({"hamming": {**ZERO, "max_distance": 99}}) == ["1", "2", "3"]
    assert ids({"match_all": {}}, post_filter=near) == ["1", "2"]
    aggregations = {"near": {"filter": near}, "n": {"terms": {"field": "n"}}}
    answer = server.search(name, {"match_all": {}}, size=0, aggs=aggregations)
    assert answer["aggregations"]["near"]["doc_count"] == 2
    answer = server.search(name, near, size=0, aggs=aggregations)
    assert [b["key"] for b in answer["aggregations"]["n"]["buckets"]] == [1, 2]
    rescore = {"window_size": 10, "query": {"rescore_query": near, "query_weight": 0}}
    hits = server.search(name, {"exists": {"field": "id"}}, rescore=rescore)["hits"]["hits"]
    assert {h["_id"]: h["_score"] for h in hits} == {"1": 1.0, "2": 0.5, "3": 0.0, "4": 0.0}
    hits = server.search(name, {"match_all": {}}, post_filter=near)["hits"]["hits"]
    assert {h["_id"] for h in hits} == {"1", "2"}


def test_query_with_boost_name_and_min_score(server: Server, name: str) -> None:
    store_four(server, name)
    hits = server.search(name, {"hamming": {**ZERO, "boost": 3, "_name": "n"}})["hits"]["hits"]
    assert [h["_score"] for h in hits] == pytest.approx([3, 3 / 2, 3 / 17])
    assert all(h["matched_queries"] == ["n"] for h in hits)
    near = {"hamming": {**ZERO, "max_distance": 1}}
    assert len(server.search(name, near, min_score=0.75)["hits"]["hits"]) == 1


def test_explain_has_distance_and_differing_bytes(server: Server, name: str) -> None:
    store_four(server, name)

    def explain(key: str, query: dict[str, Any]) -> tuple[bool, str]:
        answer = server("POST", f"{name}/_explain/{key}", {"query": {"hamming": query}})
        return answer["matched"], json.dumps(answer["explanation"])

    assert explain("1", ZERO)[1].count("distance 0 of 16 bits between field image_code; no byte")
    matched, text = explain("3", {"field": "image_code", "codes": ["0000", "0001"]})
    assert matched
    assert "distance 15 of 16 bits between field image_code and code 1 of 2" in text
    assert "bytes that differ: 0 (8 bits), 1 (7 bits)" in text
    matched, text = explain("3", {**ZERO, "max_distance": 3})
    assert not matched
    assert "more than max_distance 3" in text
    matched, text = explain("4", ZERO)
    assert not matched
    assert "no code in image_code" in text
    matched, text = explain("3", {**ZERO, "filter": {"term": {"n": 1}}})
    assert not matched
    assert "does not match the filter" in text


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"code": "0000"}, "requires [field] or [fields]"),
        ({"field": "image_code"}, "requires [code] or [codes]"),
        ({**ZERO, "fields": ["text_code"]}, "one of [field] and [fields], once"),
        ({**ZERO, "codes": ["0000"]}, "one of [code] and [codes], once"),
        ({"field": "image_code", "codes": []}, "[codes] is empty"),
        ({"fields": [], "code": "0000"}, "[fields] is empty"),
        ({"field": "image_code", "codes": ["0000"] * 257}, "has 257 codes, expected at most 256"),
        ({"field": "image_code", "code": ""}, "0 bits as hex; the field has 16"),
        ({"field": 3, "code": "0000"}, "[field] must be a name"),
        ({"fields": "image_code", "code": "0000"}, "[fields] must be a list of names"),
        ({**ZERO, "boost": -1}, "[boost] must be"),
        ({"field": "image_code", "code": "000000"}, "24 bits as hex; the field has 16"),
        ({"field": "image_code", "code": "AAAAAAAAAAA="}, "64 bits; the field has 16"),
        ({"field": "image_code", "code": "zzz!"}, "neither hex nor base64"),
        ({"field": "image_code", "code": [1, 2, 3]}, "24 bits; the field has 16"),
        ({"field": "image_code", "code": [1, 200]}, "from -128 to 127, found 200"),
        ({"field": "image_code", "code": [1, 2.5]}, "from -128 to 127, found 2.5"),
        ({"field": "image_code", "code": ["00", "00"]}, "use [codes] for several codes"),
        ({"field": "image_code", "code": {}}, "must be hex, base64 or a list"),
        ({**ZERO, "max_distance": -1}, "0 or more, found -1"),
        ({**ZERO, "max_distance": 1.5}, "0 or more, found 1.5"),
        ({**ZERO, "max_distance": "3"}, "0 or more, found 3"),
        ({**ZERO, "max": 1}, "unknown key [max]"),
        ({**ZERO, "filter": "tag"}, "[filter] must be a query"),
        ({"field": "nowhere", "code": "0000"}, "no field [nowhere]"),
        ({"field": "tag", "code": "0000"}, "field [tag] is a keyword, not a code field"),
        ({"field": "floats", "code": "0000"}, "field [floats] holds vectors that are not binary"),
        ({"field": "parts.code", "code": "0000"}, "is inside nested [parts]"),
        ({"fields": ["image_code", "long_code"], "code": "0000"}, "16 and 32 bits"),
    ],
)
def test_invalid_query_is_a_400_with_a_reason(
    server: Server, name: str, query: dict[str, Any], reason: str
) -> None:
    create(server, name, 16)
    more = {
        "floats": {"type": "knn_vector", "dimension": 4},
        "long_code": code_field(32, "flat"),
        "parts": {"type": "nested", "properties": {"code": code_field(16, "flat")}},
    }
    server("PUT", f"{name}/_mapping", {"properties": more})
    with pytest.raises(Refused) as refused:
        server.search(name, {"hamming": query})
    assert refused.value.status == 400
    assert reason in json.loads(refused.value.body)["error"]["root_cause"][0]["reason"]


def test_query_of_an_object_field_and_an_alias(server: Server, name: str) -> None:
    create(server, name, 16)
    more = {
        "page": {"properties": {"code": code_field(16, "flat")}},
        "other": {"type": "alias", "path": "page.code"},
    }
    server("PUT", f"{name}/_mapping", {"properties": more})
    server("PUT", f"{name}/_doc/1?refresh=true", {"page": {"code": [0, 1]}})
    for path in ("page.code", "other"):
        query = {"hamming": {"field": path, "code": "0000"}}
        assert found(server.search(name, query)) == [(1, "1")]


def test_query_without_documents_or_codes(server: Server, name: str) -> None:
    create(server, name, 16)
    assert server.search(name, {"hamming": ZERO})["hits"]["total"]["value"] == 0
    server("PUT", f"{name}/_doc/1?refresh=true", {"id": "1"})
    assert server.search(name, {"hamming": ZERO})["hits"]["total"]["value"] == 0
    assert server("POST", f"{name}/_count", {"query": {"hamming": ZERO}})["count"] == 0

"""The ``hamming`` query inside a ``nested`` query: documents with several codes.

Same fixtures and helpers as test_hamming_query.py.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from support.hamming_server import BY_ID, Code, Refused, Server, bulk, code_field, create, found

BITS = 72
PATH, FIELD = "image_codes", "image_codes.code"


def add_nested(server: Server, name: str, storage: str, bits: int = BITS) -> None:
    """Create an index with nested codes beside the flat ones."""
    create(server, name, bits, storage, shards=2)
    properties = {"code": code_field(bits, storage), "k": {"type": "integer"}}
    parts = {PATH: {"type": "nested", "properties": properties}}
    server("PUT", f"{name}/_mapping", {"properties": parts})


def near(code: Code, **more: Any) -> dict[str, Any]:
    """Return the nested query of a code, whose score is that of the nearest code."""
    inner = {"hamming": {"field": FIELD, "code": code.tobytes().hex(), **more}}
    return {"nested": {"path": PATH, "score_mode": "max", "query": inner}}


def random_code(rng: np.random.Generator) -> Code:
    """Return a code of few distinct bytes, so that distances tie."""
    return rng.choice(np.array([0, 1, 255], np.uint8), size=BITS // 8).astype(np.uint8)


@pytest.mark.parametrize("storage", ["flat", "faiss", "lucene"])
def test_nested_codes_agree_with_numpy_after_updates_and_deletes(
    server: Server, name: str, storage: str
) -> None:
    rng = np.random.default_rng(len(storage))
    add_nested(server, name, storage)
    codes: dict[str, list[Code]] = {}
    flat: dict[str, Code] = {}
    for step in range(6):
        out = []
        for number in rng.choice(900, size=200, replace=False):
            key = f"{number:04d}"
            flat.pop(key, None)
            if codes.pop(key, None) is not None and rng.random() < 0.3:
                out.append(json.dumps({"delete": {"_id": key}}))
                continue
            size = 40 if number == 7 else int(rng.integers(8))
            codes[key] = [random_code(rng) for _ in range(size)]
            document = {"id": key, "n": int(number) % 7}
            document[PATH] = [
                {"code": code.view(np.int8).tolist(), "k": k} for k, code in enumerate(codes[key])
            ]
            if size == 0:
                flat[key] = random_code(rng)
                document["image_code"] = flat[key].view(np.int8).tolist()
            out += [json.dumps({"index": {"_id": key}}), json.dumps(document)]
        bulk(server, name, "\n".join(out) + "\n")
        if step == 4:
            server("POST", f"{name}/_forcemerge?max_num_segments=1")
        server("POST", f"{name}/_refresh")
        code = random_code(rng)

        def distance(one: Code, code: Code = code) -> int:
            return int(np.bitwise_count(one ^ code).sum())

        best = {key: min(map(distance, own)) for key, own in codes.items() if own}
        ranked = sorted((value, key) for key, value in best.items())
        single = sorted((distance(one), key) for key, one in flat.items())
        some = [pair for pair in ranked if int(pair[1]) % 7 < 4]
        low = {"range": {"n": {"lt": 4}}}
        for size in (1, 10, 1000):
            more = {"size": size, "sort": BY_ID, "track_total_hits": size == 10}
            assert found(server.search(name, near(code), **more)) == ranked[:size]
            unsorted = found(server.search(name, near(code), size=size))
            assert [value for value, _ in unsorted] == [value for value, _ in ranked[:size]]
            within = [pair for pair in ranked if pair[0] <= 20]
            assert found(server.search(name, near(code, max_distance=20), **more)) == within[:size]
            filtered = {"bool": {"must": [near(code)], "filter": [low]}}
            assert found(server.search(name, filtered, **more)) == some[:size]
            alone = {"hamming": {"field": "image_code", "code": code.tobytes().hex()}}
            assert found(server.search(name, alone, **more)) == single[:size]
            both = {"bool": {"should": [alone, near(code)]}}
            assert found(server.search(name, both, **more)) == sorted(ranked + single)[:size]
        assert server("POST", f"{name}/_count", {"query": near(code)})["count"] == len(ranked)
        # A condition on the objects themselves.
        second = near(code)
        second["nested"]["query"] = {
            "bool": {
                "must": [second["nested"]["query"]],
                "filter": [{"term": {"image_codes.k": 1}}],
            }
        }
        expected = sorted((distance(own[1]), key) for key, own in codes.items() if len(own) > 1)
        assert found(server.search(name, second, size=1000, sort=BY_ID)) == expected


def test_inner_hits_and_explain_have_the_nearest_code(server: Server, name: str) -> None:
    add_nested(server, name, "faiss", bits=16)
    codes = [[-1, -1], [0, 3], [0, 1], [0, 1]]
    document = {"id": "1", PATH: [{"code": code} for code in codes]}
    server("PUT", f"{name}/_doc/1?refresh=true", document)
    query = near(np.zeros(2, np.uint8))
    query["nested"]["inner_hits"] = {"size": 1, "_source": False}
    [hit] = server.search(name, query)["hits"]["hits"]
    [inner] = hit["inner_hits"][PATH]["hits"]["hits"]
    assert (inner["_nested"]["offset"], inner["_score"]) == (2, 0.5)
    del query["nested"]["inner_hits"]
    answer = server("POST", f"{name}/_explain/1", {"query": query})
    assert answer["matched"]
    assert f"distance 1 of 16 bits between field {FIELD}" in json.dumps(answer["explanation"])


def test_nested_codes_are_warmed_up_and_counted(server: Server, name: str) -> None:
    add_nested(server, name, "faiss", bits=16)
    server("PUT", f"{name}/_doc/1?refresh=true", {PATH: [{"code": [0, 1]}, {"code": [0, 2]}]})
    before = server.stats()
    assert server("POST", f"_plugins/_hamming/warmup/{name}?fields={FIELD}")["cache_entries"] == 1
    assert server.stats()["cache_entries"] == before["cache_entries"] + 1
    assert server("POST", f"_plugins/_hamming/warmup/{name}")["cache_entries"] == 1
    assert found(server.search(name, near(np.zeros(2, np.uint8)))) == [(1, "1")]
    after = server.stats()
    assert (after["misses"], after["hits"]) == (before["misses"], before["hits"] + 1)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"hamming": {"field": FIELD, "code": "0000"}}, "put this query into a nested query"),
        (near(np.zeros(2, np.uint8), filter={"term": {"tag": "red"}}), "into a bool around"),
        (
            {
                "nested": {
                    "path": PATH,
                    "query": {"hamming": {"field": "image_code", "code": "0000"}},
                }
            },
            "field [image_code] is outside of nested [image_codes]",
        ),
        ({"hamming": {"fields": ["image_code", FIELD], "code": "0000"}}, "is inside nested"),
    ],
)
def test_query_outside_of_the_objects_of_its_field_is_refused(
    server: Server, name: str, query: dict[str, Any], reason: str
) -> None:
    add_nested(server, name, "flat", bits=16)
    with pytest.raises(Refused) as refused:
        server.search(name, query)
    assert refused.value.status == 400
    assert reason in json.loads(refused.value.body)["error"]["root_cause"][0]["reason"]


def test_percolator_of_an_index_with_nested_codes(server: Server, name: str) -> None:
    add_nested(server, name, "flat", bits=16)
    server("PUT", f"{name}/_mapping", {"properties": {"query": {"type": "percolator"}}})
    flat = {"hamming": {"field": "image_code", "code": "0000", "max_distance": 1}}
    for key, query in (("flat", flat), ("nested", near(np.zeros(2, np.uint8), max_distance=1))):
        server("PUT", f"{name}/_doc/{key}?refresh=true", {"query": query})

    def stored(document: dict[str, Any]) -> set[str]:
        percolate = {"percolate": {"field": "query", "document": document}}
        return {hit["_id"] for hit in server.search(name, percolate)["hits"]["hits"]}

    assert stored({"image_code": [0, 1]}) == {"flat"}
    assert stored({"image_code": [0, 3]}) == set()
    assert stored({PATH: [{"code": [0, 3]}, {"code": [0, 2]}]}) == {"nested"}

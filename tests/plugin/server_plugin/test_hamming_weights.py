"""The key ``weights`` of the ``hamming`` query on a real node, compared with numpy.

Same fixtures and helpers as test_hamming_query.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.hamming_server import (
    BY_ID,
    Code,
    Model,
    Refused,
    Server,
    bulk,
    code_field,
    create,
    found,
    lines,
    put,
)

Weights = npt.NDArray[np.int64]
STORAGES = ["flat", "faiss", "lucene"]


def digits(weights: Iterable[int]) -> str:
    return "".join(f"{weight:x}" for weight in weights)


def random_code(rng: np.random.Generator, bits: int) -> Code:
    """Return a code of few distinct bytes, so that distances tie."""
    return rng.choice(np.array([0, 1, 3, 255], np.uint8), size=bits // 8).astype(np.uint8)


def random_weights(rng: np.random.Generator, bits: int) -> Weights:
    return rng.integers(0, rng.choice([2, 5, 16]), bits)


def key(code: Code, query: Code, weights: Weights) -> tuple[int, int]:
    """Weighted and Hamming distance of two codes."""
    differ = np.unpackbits(code ^ query)
    return int(differ @ weights), int(differ.sum())


def keys(answer: Any, bits: int) -> list[tuple[tuple[int, int], str]]:
    """Return ((weighted, Hamming), id) of each hit, in the order of the answer."""
    hits = answer["hits"]["hits"]
    scores = np.array([hit["_score"] for hit in hits], np.float32).astype(np.float64)
    numbers = np.rint(1 / scores - 1).astype(int).tolist()
    names = [hit["_id"] for hit in hits]
    return [(divmod(number, bits + 1), one) for number, one in zip(numbers, names, strict=True)]


def expected(
    model: Model,
    queries: list[tuple[Code, Weights]],
    fields: Iterable[str],
    tag: str | None = None,
    radius: int | None = None,
) -> list[tuple[tuple[int, int], str]]:
    """((weighted, Hamming), id) of every document with a code within the radius, in order."""
    best: dict[str, tuple[int, int]] = {}
    for field in fields:
        for name, code in getattr(model, field).items():
            if tag is not None and model.tag[name] != tag:
                continue
            pairs = [key(code, *query) for query in queries]
            pairs = [pair for pair in pairs if radius is None or pair[1] <= radius]
            if pairs:
                best[name] = min([*pairs, *([best[name]] if name in best else [])])
    return sorted((pair, name) for name, pair in best.items())


def check_weights(server: Server, name: str, model: Model, rng: np.random.Generator) -> None:
    """Run one random query in all its forms and compare the results with numpy."""
    bits = model.bits
    queries = [
        (random_code(rng, bits), random_weights(rng, bits)) for _ in range(int(rng.integers(1, 4)))
    ]
    fields = [("image",), ("text",), ("image", "text")][int(rng.integers(3))]
    tag = [None, "red"][int(rng.integers(2))]
    size = int(rng.choice([1, 10, 1000]))
    radius = int(rng.integers(bits + 1))
    query: dict[str, Any] = {
        "fields": [f"{field}_code" for field in fields],
        "codes": [code.tobytes().hex() for code, _ in queries],
        "weights": [digits(weights) for _, weights in queries],
    }
    if tag:
        query["filter"] = {"term": {"tag": tag}}
    near = {"hamming": {**query, "max_distance": radius}}
    ranked = expected(model, queries, fields, tag)
    within = expected(model, queries, fields, tag, radius)
    for track in (False, True):
        more = {"size": size, "sort": BY_ID, "track_scores": True, "track_total_hits": track}
        assert keys(server.search(name, {"hamming": query}, **more), bits) == ranked[:size]
        assert keys(server.search(name, near, **more), bits) == within[:size]
    plain = keys(server.search(name, {"hamming": query}, size=size), bits)
    assert [pair for pair, _ in plain] == [pair for pair, _ in ranked[:size]]
    # As a clause of another query it is scored document by document (HammingScorer).
    both = {"bool": {"must": [near], "filter": [{"range": {"n": {"lt": 4}}}]}}
    some = [entry for entry in within if int(entry[1]) % 7 < 4]
    assert keys(server.search(name, both, size=size, sort=BY_ID), bits) == some[:size]
    assert server("POST", f"{name}/_count", {"query": near})["count"] == len(within)


def test_scores_of_all_keys_are_distinct_and_give_the_key() -> None:
    """The arithmetic of the server (32-bit floats), for all keys that the query accepts."""
    numbers = np.arange(2**23 + 1)
    scores = np.float32(1) / (np.float32(1) + numbers.astype(np.float32))
    assert scores.dtype == np.float32
    assert (np.diff(scores) < 0).all()
    assert (np.rint(1 / scores.astype(np.float64) - 1) == numbers).all()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("bits", [8, 64, 72, 128, 256, 384, 512])
def test_weights_agree_with_numpy_after_updates_deletes_and_merges(
    server: Server, name: str, bits: int, storage: str
) -> None:
    rng = np.random.default_rng(bits + len(storage))
    create(server, name, bits, storage, shards=1 + bits % 3)
    model = Model(bits)
    for step in range(6):
        names = [f"{i:04d}" for i in rng.choice(1500, size=250, replace=False)]
        if step % 3 == 2:
            names = [one for one in names if one in model.tag]
            for one in names:
                for part in (model.image, model.text, model.tag):
                    part.pop(one, None)
            body = "\n".join(json.dumps({"delete": {"_id": one}}) for one in names) + "\n"
        else:
            # Some segments have few codes, which selects the sparse layout.
            put(rng, model, names, *((0.9, 0.3) if step < 3 else (0.05, 1.0)))
            body = lines(model, names)
        bulk(server, name, body, refresh=True)
        if step == 4:
            server("POST", f"{name}/_forcemerge?max_num_segments=1")
            server("POST", f"{name}/_refresh")
        check_weights(server, name, model, rng)


@pytest.mark.parametrize("storage", ["flat", "faiss"])
def test_weights_in_a_large_segment_with_and_without_the_cache(
    server: Server, name: str, storage: str
) -> None:
    """Enough documents that the competitive key decreases within a segment; then doc values."""
    rng = np.random.default_rng(5)
    create(server, name, 16, storage)
    model = Model(16)
    put(rng, model, [f"{i:05d}" for i in rng.permutation(20_000)])
    names = list(model.tag)
    for at in range(0, len(names), 5000):
        bulk(server, name, lines(model, names[at : at + 5000]))
    server("POST", f"{name}/_forcemerge?max_num_segments=1")
    server("POST", f"{name}/_refresh")
    for _ in range(3):
        check_weights(server, name, model, rng)
    limit = "hamming.breaker.limit"
    server("PUT", "_cluster/settings", {"transient": {limit: "1kb"}})
    try:
        for _ in range(2):
            check_weights(server, name, model, rng)
    finally:
        server("PUT", "_cluster/settings", {"transient": {limit: None}})


def test_equal_weights_rank_as_without(server: Server, name: str) -> None:
    rng = np.random.default_rng(1)
    create(server, name, 64)
    model = Model(64)
    put(rng, model, [f"{i:04d}" for i in range(300)])
    bulk(server, name, lines(model, list(model.tag)), refresh=True)
    query = {"field": "image_code", "code": random_code(rng, 64).tobytes().hex()}
    plain = found(server.search(name, {"hamming": query}, sort=BY_ID, size=300))
    same = server.search(name, {"hamming": {**query, "weights": "1" * 64}}, sort=BY_ID, size=300)
    assert keys(same, 64) == [((distance, distance), one) for distance, one in plain]


def test_largest_weights_have_exact_keys(server: Server, name: str) -> None:
    """1,024 bits of weight 7: keys just below 2^23 that differ by one."""
    bits = 1024
    create(server, name, bits)
    codes = {"1": np.full(bits // 8, 255, np.uint8)}
    for one, last in (("2", 254), ("3", 252)):
        codes[one] = codes["1"].copy()
        codes[one][-1] = last
    model = Model(bits, image=codes, tag=dict.fromkeys(codes, "red"))
    bulk(server, name, lines(model, list(codes)), refresh=True)
    weights = np.full(bits, 7)
    weights[-2:] = 0
    query = {"field": "image_code", "code": "00" * (bits // 8), "weights": digits(weights)}
    total = int(weights.sum())
    assert keys(server.search(name, {"hamming": query}, sort=BY_ID), bits) == [
        ((total, bits - 2), "3"),
        ((total, bits - 1), "2"),
        ((total, bits), "1"),
    ]


def test_weights_inside_a_nested_query(server: Server, name: str) -> None:
    rng = np.random.default_rng(3)
    bits = 72
    create(server, name, bits, "faiss", shards=2)
    nested = {"type": "nested", "properties": {"code": code_field(bits, "faiss")}}
    server("PUT", f"{name}/_mapping", {"properties": {"image_codes": nested}})
    codes = {
        f"{i:03d}": [random_code(rng, bits) for _ in range(int(rng.integers(1, 6)))]
        for i in range(400)
    }
    out = []
    for one, own in codes.items():
        parts = [{"code": code.view(np.int8).tolist()} for code in own]
        out += [json.dumps({"index": {"_id": one}}), json.dumps({"id": one, "image_codes": parts})]
    bulk(server, name, "\n".join(out) + "\n", refresh=True)
    for radius in (bits, 30):
        code, weights = random_code(rng, bits), random_weights(rng, bits)
        inner = {"field": "image_codes.code", "code": code.tobytes().hex()}
        inner |= {"weights": digits(weights), "max_distance": radius}
        query = {"path": "image_codes", "score_mode": "max", "query": {"hamming": inner}}
        ranked = []
        for one, own in codes.items():
            pairs = [pair for pair in (key(c, code, weights) for c in own) if pair[1] <= radius]
            if pairs:
                ranked.append((min(pairs), one))
        for size in (10, 1000):
            answer = server.search(name, {"nested": query}, sort=BY_ID, size=size)
            assert keys(answer, bits) == sorted(ranked)[:size]


def test_weights_with_boost_explain_and_profile(server: Server, name: str) -> None:
    create(server, name, 16)
    model = Model(16, image={"1": np.array([1, 128], np.uint8)}, tag={"1": "red"})
    bulk(server, name, lines(model, ["1"]), refresh=True)
    query: dict[str, Any] = {"field": "image_code", "code": "0000", "weights": "0000000250000000"}
    [hit] = server.search(name, {"hamming": {**query, "boost": 2}})["hits"]["hits"]
    assert hit["_score"] == pytest.approx(2 / (1 + 7 * 17 + 2))

    def explain(query: dict[str, Any]) -> tuple[bool, str]:
        answer = server("POST", f"{name}/_explain/1", {"query": {"hamming": query}})
        return answer["matched"], json.dumps(answer["explanation"])

    matched, text = explain(query)
    assert matched
    assert "key = weighted distance * 17 + distance" in text
    assert "weighted distance 7, distance 2 of 16 bits between field image_code" in text
    matched, text = explain({**query, "max_distance": 1})
    assert not matched
    assert "more than max_distance 1" in text
    profile = server.search(name, {"hamming": query}, profile=True)["profile"]
    assert "0000 weighted 0000000250000000" in json.dumps(profile)


def test_stored_query_with_weights(server: Server, name: str) -> None:
    """A percolator stores queries in the format that nodes exchange."""
    create(server, name, 16)
    server("PUT", f"{name}/_mapping", {"properties": {"query": {"type": "percolator"}}})
    query = {"field": "image_code", "code": "0000", "max_distance": 1}
    server("PUT", f"{name}/_doc/plain", {"query": {"hamming": query}})
    weights = {"weights": "0000000500000000"}
    server(
        "PUT", f"{name}/_doc/weighted?refresh=true", {"query": {"hamming": {**query, **weights}}}
    )
    stored = {"percolate": {"field": "query", "document": {"image_code": [1, 0]}}}
    hits = server.search(name, stored)["hits"]["hits"]
    scores = {hit["_id"]: round(1 / hit["_score"] - 1) for hit in hits}
    assert scores == {"plain": 1, "weighted": 5 * 17 + 1}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"weights": "f" * 15}, "has 15 digits, expected 16"),
        ({"weights": "f" * 17}, "has 17 digits, expected 16"),
        ({"weights": "0" * 15 + "g"}, "[g] at position 15, expected hexadecimal"),
        ({"weights": ["1" * 16, "1" * 16]}, "has 2 texts, expected 1"),
        ({"weights": []}, "has 0 texts, expected 1"),
        ({"weights": 5}, "must be hexadecimal digits"),
        ({"weights": [[1]]}, "must be hexadecimal digits"),
        (
            {"field": "long", "code": "00" * 128, "weights": "8" * 1024},
            "sum 8192, expected at most",
        ),
    ],
)
def test_invalid_weights_are_a_400_with_a_reason(
    server: Server, name: str, more: dict[str, Any], reason: str
) -> None:
    create(server, name, 16)
    server("PUT", f"{name}/_mapping", {"properties": {"long": code_field(1024, "flat")}})
    with pytest.raises(Refused) as refused:
        server.search(name, {"hamming": {"field": "image_code", "code": "0000", **more}})
    assert refused.value.status == 400
    assert reason in json.loads(refused.value.body)["error"]["root_cause"][0]["reason"]

"""The ``two_stage`` query of the server plugin on a real node, compared with numpy.

Same fixtures and helpers as test_hamming_query.py.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.hamming_server import (
    BY_ID,
    Code,
    Refused,
    Server,
    bulk,
    code_field,
    create,
    vector_field,
)

from xmodal.vectors import cosine

Vector = npt.NDArray[np.int8]
Ranking = list[tuple[float, str]]
BITS, DIM = 16, 8
PATH = "image_codes"
MATCH_ALL = {"match_all": {}}


@dataclass
class Documents:
    """Codes with vectors (None: no vector) and tags of the documents of an index."""

    parts: dict[str, list[tuple[Code, Vector | None]]] = field(default_factory=dict)
    tag: dict[str, str] = field(default_factory=dict)

    def distances(self, code: Code, tag: str | None = None) -> dict[str, int]:
        """Distance of the nearest code of each document."""
        return {
            key: min(int(np.bitwise_count(own ^ code).sum()) for own, _ in parts)
            for key, parts in self.parts.items()
            if tag is None or self.tag[key] == tag
        }

    def ranked(self, code: Code, vector: Vector, window: int, tag: str | None = None) -> Ranking:
        """(score, id) of the documents of the window, by the tie rule."""
        distances = self.distances(code, tag)
        last = sorted(distances.values())[:window][-1] if distances else 0
        kept = [key for key, distance in distances.items() if distance <= last]
        return sorted(((self.score(key, vector), key) for key in kept), key=by_rank)

    def score(self, key: str, vector: Vector) -> float:
        """The score of the largest cosine; 0 without a vector."""
        own = [one for _, one in self.parts[key] if one is not None]
        if not own:
            return 0
        return float(np.float32((1 + cosine(vector, np.array(own)).max()) / 2))


def by_rank(pair: tuple[float, str]) -> tuple[float, str]:
    return -pair[0], pair[1]


def random_code(rng: np.random.Generator) -> Code:
    return rng.choice(np.array([0, 1, 3, 255], np.uint8), BITS // 8).astype(np.uint8)


def random_vector(rng: np.random.Generator) -> Vector:
    return rng.integers(-128, 128, DIM).astype(np.int8)


def create_index(server: Server, name: str, storage: str = "flat", shards: int = 1) -> None:
    """Create an index with a flat code and vector, and the same in nested objects."""
    create(server, name, BITS, storage, shards)
    vector = vector_field(DIM, storage)
    properties = {"code": code_field(BITS, storage), "vector": vector, "k": {"type": "integer"}}
    nested = {"type": "nested", "properties": properties}
    server("PUT", f"{name}/_mapping", {"properties": {"image_vector": vector, PATH: nested}})


def write(
    server: Server, name: str, documents: Documents, rng: np.random.Generator, keys: list[str]
) -> None:
    """Store or delete documents of random content, one part in flat fields, several in objects."""
    out = []
    for key in keys:
        known = documents.parts.pop(key, None)
        if known is not None and rng.random() < 0.3:
            out.append(json.dumps({"delete": {"_id": key}}))
            continue
        parts = [
            (random_code(rng), random_vector(rng) if rng.random() < 0.8 else None)
            for _ in range(int(rng.integers(1, 4)))
        ]
        documents.parts[key] = parts
        documents.tag[key] = "red" if rng.random() < 0.5 else "blue"
        document: dict[str, Any] = {"id": key, "tag": documents.tag[key], "n": int(key) % 7}
        objects = []
        for code, vector in parts:
            objects.append({"code": code.view(np.int8).tolist()})
            if vector is not None:
                objects[-1]["vector"] = vector.tolist()
        if len(objects) == 1:
            document |= {f"image_{name}": value for name, value in objects[0].items()}
        else:
            document[PATH] = objects
        out += [json.dumps({"index": {"_id": key}}), json.dumps(document)]
    bulk(server, name, "\n".join(out) + "\n", refresh=True)


def filled(server: Server, name: str, count: int, **options: Any) -> Documents:
    """Create an index of ``count`` documents in several segments, some of them deleted."""
    create_index(server, name, **options)
    rng, documents = np.random.default_rng(count), Documents()
    for at in range(0, count, max(1, count // 4)):
        keys = [f"{i:04d}" for i in range(at, min(count, at + count // 4))]
        write(server, name, documents, rng, keys + keys[:5])
    return documents


def either(flat: dict[str, Any], nested: dict[str, Any]) -> dict[str, Any]:
    """Return the query of the flat field or of the best nested object."""
    inside = {"nested": {"path": PATH, "score_mode": "max", "query": nested}}
    return {"bool": {"should": [flat, inside]}}


def near(code: Code, **more: Any) -> dict[str, Any]:
    body = {"code": code.tobytes().hex(), **more}
    flat = {"hamming": {"field": "image_code", **body}}
    return either(flat, {"hamming": {"field": f"{PATH}.code", **body}})


def like(vector: Vector) -> dict[str, Any]:
    body = {"vector": base64.b64encode(vector.tobytes()).decode()}
    flat = {"vector_cosine": {"field": "image_vector", **body}}
    return either(flat, {"vector_cosine": {"field": f"{PATH}.vector", **body}})


def stages(first: Any, second: Any, window: int, **more: Any) -> dict[str, Any]:
    return {"two_stage": {"first": first, "second": second, "window": window, **more}}


def hits(server: Server, name: str, query: Any, size: int = 1000, **more: Any) -> Ranking:
    """(score, id) of each hit, in the order of the answer."""
    answer = server.search(name, query, sort=BY_ID, size=size, **more)
    return [(float(np.float32(hit["_score"])), hit["_id"]) for hit in answer["hits"]["hits"]]


@contextmanager
def cluster_settings(server: Server, settings: dict[str, Any]) -> Iterator[None]:
    server("PUT", "_cluster/settings", {"transient": settings})
    try:
        yield
    finally:
        server("PUT", "_cluster/settings", {"transient": dict.fromkeys(settings)})


@pytest.mark.parametrize("storage", ["flat", "faiss", "lucene"])
@pytest.mark.parametrize("concurrent", ["none", "all"])
def test_window_agrees_with_numpy_after_updates_and_deletes(
    server: Server, name: str, storage: str, concurrent: str
) -> None:
    """Few distances: documents tie at the end of every window. Several segments."""
    rng = np.random.default_rng(len(storage))
    create_index(server, name, storage)
    documents = Documents()
    modes = {"search.concurrent_segment_search.mode": concurrent}
    with cluster_settings(server, modes):
        for step in range(6):
            keys = [f"{i:04d}" for i in rng.choice(700, size=200, replace=False)]
            write(server, name, documents, rng, keys)
            if step == 4:
                server("POST", f"{name}/_forcemerge?max_num_segments=1")
                server("POST", f"{name}/_refresh")
            code, vector = random_code(rng), random_vector(rng)
            for window in (1, 7, 50, 10_000):
                expected = documents.ranked(code, vector, window)
                query = stages(near(code), like(vector), window)
                assert hits(server, name, query) == expected
                assert hits(server, name, query, 5) == expected[:5]
                assert hits(server, name, query, 5, track_total_hits=False) == expected[:5]
                count = server("POST", f"{name}/_count", {"query": query})["count"]
                assert count == len(expected)


def test_filters_of_the_first_stage_and_around_the_query(server: Server, name: str) -> None:
    documents = filled(server, name, 400)
    rng = np.random.default_rng(1)
    code, vector, red = random_code(rng), random_vector(rng), {"term": {"tag": "red"}}
    first = {"bool": {"must": [near(code)], "filter": [red]}}
    expected = documents.ranked(code, vector, 20, "red")
    assert hits(server, name, stages(first, like(vector), 20)) == expected
    around = {"bool": {"must": [stages(near(code), like(vector), 20)], "filter": [red]}}
    window = documents.ranked(code, vector, 20)
    assert hits(server, name, around) == [one for one in window if documents.tag[one[1]] == "red"]


def test_filter_of_an_alias_applies_before_the_window(server: Server, name: str) -> None:
    documents = filled(server, name, 400)
    rng = np.random.default_rng(2)
    code, vector = random_code(rng), random_vector(rng)
    alias = f"{name}-red"
    server("PUT", f"{name}/_alias/{alias}", {"filter": {"term": {"tag": "red"}}})
    query = stages(near(code), like(vector), 20)
    expected = documents.ranked(code, vector, 20, "red")
    assert hits(server, alias, query) == expected
    assert hits(server, alias, {"bool": {"must": [query]}}) == expected
    explained = server.search(alias, query, sort=BY_ID, explain=True)["hits"]["hits"]
    assert all(hit["_explanation"]["value"] == hit["_score"] for hit in explained)


def test_window_is_of_each_shard(server: Server, name: str) -> None:
    documents = filled(server, name, 400, shards=2)
    rng = np.random.default_rng(3)
    code, vector = random_code(rng), random_vector(rng)
    query = stages(near(code), like(vector), 1000)
    assert hits(server, name, query) == documents.ranked(code, vector, 1000)
    best = {one for _, one in documents.ranked(code, vector, 10)}
    found = hits(server, name, stages(near(code), like(vector), 10))
    assert best <= {one for _, one in found}
    assert found == sorted(found, key=by_rank)


def test_first_stage_by_weights_words_and_ids(server: Server, name: str) -> None:
    documents = filled(server, name, 200)
    rng = np.random.default_rng(4)
    code, vector = random_code(rng), random_vector(rng)
    weighted = stages(near(code, weights="1" * BITS), like(vector), 20)
    assert hits(server, name, weighted) == documents.ranked(code, vector, 20)
    some = list(documents.parts)[:9]
    by_id = stages({"ids": {"values": some}}, like(vector), 3)  # all documents tie
    ranked = sorted(((documents.score(key, vector), key) for key in some), key=by_rank)
    assert hits(server, name, by_id) == ranked
    nothing = stages({"term": {"tag": "green"}}, like(vector), 3)
    assert hits(server, name, nothing) == []
    unscored = stages(near(code), {"term": {"tag": "green"}}, 20)
    expected = documents.ranked(code, vector, 20)
    assert hits(server, name, unscored) == sorted((0.0, key) for _, key in expected)


def test_nested_objects_do_not_count_for_the_window(server: Server, name: str) -> None:
    """``match_all`` matches nested objects too; without a restriction they would tie."""
    documents = filled(server, name, 60)
    vector = random_vector(np.random.default_rng(5))
    ranked = sorted(((documents.score(key, vector), key) for key in documents.parts), key=by_rank)
    assert hits(server, name, stages(MATCH_ALL, like(vector), 1)) == ranked
    by_number = {"function_score": {"query": MATCH_ALL, "script_score": {"script": "_score"}}}
    assert hits(server, name, stages(by_number, like(vector), 10)) == ranked


def test_boost_name_inner_hits_and_other_contexts(server: Server, name: str) -> None:
    documents = filled(server, name, 100)
    rng = np.random.default_rng(6)
    code, vector = random_code(rng), random_vector(rng)
    expected = documents.ranked(code, vector, 10)
    query = stages(near(code), like(vector), 10)
    boosted = hits(server, name, stages(near(code), like(vector), 10, boost=2))
    assert boosted == [(2 * score, key) for score, key in expected]
    named = stages(near(code), like(vector), 10, _name="stages")
    answer = server.search(name, named)["hits"]["hits"]
    assert all(hit["matched_queries"] == ["stages"] for hit in answer)
    keys = sorted(key for _, key in expected)
    only = {"bool": {"filter": [query]}}
    assert [key for _, key in hits(server, name, only)] == keys
    others = {"bool": {"must_not": [query], "filter": [{"exists": {"field": "id"}}]}}
    assert len(hits(server, name, others)) == len(documents.parts) - len(keys)
    aggregations = {"near": {"filter": query}}
    answer = server.search(name, {"match_all": {}}, size=0, aggs=aggregations)
    assert answer["aggregations"]["near"]["doc_count"] == len(keys)
    again = stages(query, like(vector), 3)
    scores = sorted(score for score, _ in expected)[-3:]
    assert hits(server, name, again) == [pair for pair in expected if pair[0] >= scores[0]]
    second = like(vector)
    second["bool"]["should"][1]["nested"]["inner_hits"] = {"size": 1, "_source": False}
    answer = server.search(name, stages(near(code), second, 10))["hits"]["hits"]
    assert all(PATH in hit["inner_hits"] for hit in answer)


def test_search_after_returns_every_page(server: Server, name: str) -> None:
    documents = filled(server, name, 200)
    rng = np.random.default_rng(7)
    code, vector = random_code(rng), random_vector(rng)
    query, pages = stages(near(code), like(vector), 40), []
    after: dict[str, Any] = {}
    while True:
        answer = server.search(name, query, sort=BY_ID, size=7, **after)["hits"]["hits"]
        if not answer:
            break
        pages += [hit["_id"] for hit in answer]
        after = {"search_after": answer[-1]["sort"]}
    assert pages == [key for _, key in documents.ranked(code, vector, 40)]


def test_explain_and_profile_have_both_stages(server: Server, name: str) -> None:
    documents = filled(server, name, 100)
    rng = np.random.default_rng(8)
    code, vector = random_code(rng), random_vector(rng)
    query = stages(near(code), like(vector), 10)
    inside = documents.ranked(code, vector, 10)
    outside = next(key for key in documents.parts if key not in {one for _, one in inside})
    for score, key in (inside[0], inside[-1]):
        answer = server("POST", f"{name}/_explain/{key}", {"query": query})
        assert answer["matched"]
        assert answer["explanation"]["value"] == pytest.approx(score)
        words = json.dumps(answer["explanation"])
        assert f"among the {len(inside)} documents of the first stage" in words
        assert "of 16 bits between field image_code" in words
    answer = server("POST", f"{name}/_explain/{outside}", {"query": query})
    assert not answer["matched"]
    assert f"not in the window of {len(inside)} documents" in json.dumps(answer["explanation"])
    answer = server.search(name, query, sort=BY_ID, size=1000, profile=True)
    assert [hit["_id"] for hit in answer["hits"]["hits"]] == [key for _, key in inside]
    assert '"type": "TwoStageQuery"' in json.dumps(answer["profile"])


def test_stored_query(server: Server, name: str) -> None:
    """A percolator stores queries in the format that nodes exchange."""
    create_index(server, name)
    server("PUT", f"{name}/_mapping", {"properties": {"query": {"type": "percolator"}}})
    zero = np.zeros(BITS // 8, np.uint8)
    query = stages(near(zero, max_distance=1), like(np.ones(DIM, np.int8)), 5)
    server("PUT", f"{name}/_doc/1?refresh=true", {"query": query})

    def scores(code: list[int]) -> list[float]:
        document = {"image_code": code, "image_vector": [1] * DIM}
        stored = {"percolate": {"field": "query", "document": document}}
        return [hit["_score"] for hit in server.search(name, stored)["hits"]["hits"]]

    assert scores([0, 1]) == [1.0]
    assert scores([0, 3]) == []


def test_timeout_stops_the_first_stage(server: Server, name: str) -> None:
    rng = np.random.default_rng(9)
    bits = 512
    create(server, name, bits)
    for at in range(0, 20_000, 5000):
        rows = rng.integers(-128, 128, (5000, bits // 8))
        out = []
        for number, row in enumerate(rows, at):
            out += ['{"index": {}}', json.dumps({"id": str(number), "image_code": row.tolist()})]
        bulk(server, name, "\n".join(out) + "\n")
    server("POST", f"{name}/_forcemerge?max_num_segments=1")
    server("POST", f"{name}/_refresh")
    codes = [rng.bytes(bits // 8).hex() for _ in range(256)]
    slow = {"hamming": {"field": "image_code", "codes": codes, "weights": ["1" * bits] * 256}}
    query = stages(slow, MATCH_ALL, 10)
    server.search(name, query, size=1)
    complete = server.search(name, query, size=1)
    assert not complete["timed_out"]
    assert server.search(name, query, size=1, timeout="2ms")["timed_out"]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"first": MATCH_ALL}, "requires [first] and [second]"),
        ({"second": MATCH_ALL}, "requires [first] and [second]"),
        (stages(MATCH_ALL, MATCH_ALL, 0)["two_stage"], "from 1 to 10000, found 0"),
        (stages(MATCH_ALL, MATCH_ALL, 10_001)["two_stage"], "from 1 to 10000, found 10001"),
        ({"first": [], "second": MATCH_ALL}, "[first] must be a query"),
        ({"first": MATCH_ALL, "second": 1}, "[second] must be a query"),
        ({"first": MATCH_ALL, "second": MATCH_ALL, "filter": MATCH_ALL}, "unknown key [filter]"),
    ],
)
def test_invalid_query_is_a_400_with_a_reason(
    server: Server, name: str, query: dict[str, Any], reason: str
) -> None:
    create_index(server, name)
    with pytest.raises(Refused) as refused:
        server.search(name, {"two_stage": query})
    assert refused.value.status == 400
    assert reason in json.loads(refused.value.body)["error"]["root_cause"][0]["reason"]


def test_query_inside_a_nested_query_is_refused(server: Server, name: str) -> None:
    create_index(server, name)
    query = {"nested": {"path": PATH, "query": stages(MATCH_ALL, MATCH_ALL, 5)}}
    with pytest.raises(Refused) as refused:
        server.search(name, query)
    assert refused.value.status == 400
    assert "put nested queries into [first]" in refused.value.body

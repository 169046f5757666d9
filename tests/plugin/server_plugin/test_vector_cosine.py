"""The ``vector_cosine`` query of the server plugin on a real node, compared with numpy.

Same fixtures and helpers as test_hamming_query.py.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.hamming_server import BY_ID, Refused, Server, bulk, create, vector_field

from xmodal.vectors import cosine

Vector = npt.NDArray[np.int8]
DIM = 40
PATH = "image_codes"


def text(vector: Vector) -> str:
    return base64.b64encode(vector.tobytes()).decode()


def score(query: Vector, vectors: list[Vector]) -> float:
    """The score of a document: that of its vector with the largest cosine."""
    return float(np.float32((1 + cosine(query, np.array(vectors)).max()) / 2))


def random_vector(rng: np.random.Generator) -> Vector:
    """Return a random vector; few have ties, extreme values or only zeros."""
    kind = rng.integers(10)
    if kind == 0:
        return np.zeros(DIM, np.int8)
    if kind < 3:
        return rng.choice(np.array([-128, 127], np.int8), DIM)
    return rng.integers(-128, 128, DIM).astype(np.int8)


def scores(server: Server, name: str, query: Any, size: int = 1000) -> list[tuple[float, str]]:
    answer = server.search(name, query, sort=BY_ID, size=size)
    return [(float(np.float32(hit["_score"])), hit["_id"]) for hit in answer["hits"]["hits"]]


def ranked(query: Vector, vectors: dict[str, list[Vector]]) -> list[tuple[float, str]]:
    """(score, id) of documents, by the tie rule."""
    found = [(score(query, own), one) for one, own in vectors.items()]
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))


def add_vectors(server: Server, name: str, storage: str, shards: int = 2) -> None:
    """Create an index with a vector field, and the same field in nested objects."""
    create(server, name, 16, storage, shards=shards)
    field = vector_field(DIM, storage)
    nested = {"type": "nested", "properties": {"vector": field, "k": {"type": "integer"}}}
    properties = {"image_vector": field, PATH: nested}
    server("PUT", f"{name}/_mapping", {"properties": properties})


@pytest.mark.parametrize("storage", ["flat", "faiss", "lucene"])
def test_cosine_agrees_with_numpy_after_updates_and_deletes(
    server: Server, name: str, storage: str
) -> None:
    rng = np.random.default_rng(len(storage))
    add_vectors(server, name, storage)
    flat: dict[str, list[Vector]] = {}
    several: dict[str, list[Vector]] = {}
    for step in range(5):
        out = []
        for number in rng.choice(500, size=150, replace=False):
            key = f"{number:04d}"
            known = flat.pop(key, None) or several.pop(key, None)
            if known is not None and rng.random() < 0.4:
                out.append(json.dumps({"delete": {"_id": key}}))
                continue
            document: dict[str, Any] = {"id": key, "n": int(number) % 7}
            size = int(rng.integers(4))
            if size > 1:
                several[key] = [random_vector(rng) for _ in range(size)]
                document[PATH] = [{"vector": one.tolist(), "k": 1} for one in several[key]]
            elif rng.random() < 0.8:
                flat[key] = [random_vector(rng)]
                document["image_vector"] = flat[key][0].tolist()
            out += [json.dumps({"index": {"_id": key}}), json.dumps(document)]
        bulk(server, name, "\n".join(out) + "\n", refresh=True)
        if step == 3:
            server("POST", f"{name}/_forcemerge?max_num_segments=1")
            server("POST", f"{name}/_refresh")
        query = random_vector(rng)
        body: dict[str, Any] = {"field": "image_vector", "vector": text(query)}
        inner = {"vector_cosine": {"field": f"{PATH}.vector", "vector": query.tolist()}}
        nested = {"nested": {"path": PATH, "score_mode": "max", "query": inner}}
        one, many = ranked(query, flat), ranked(query, several)
        assert scores(server, name, {"vector_cosine": body}) == one
        assert scores(server, name, {"vector_cosine": body}, 7) == one[:7]
        assert scores(server, name, nested) == many
        both = {"bool": {"should": [{"vector_cosine": body}, nested]}}
        assert scores(server, name, both) == ranked(query, flat | several)
        low = {"range": {"n": {"lt": 4}}}
        some = [pair for pair in one if int(pair[1]) % 7 < 4]
        assert scores(server, name, {"vector_cosine": {**body, "filter": low}}) == some
        outside = {"bool": {"must": [{"vector_cosine": body}], "filter": [low]}}
        assert scores(server, name, outside) == some
        ids = [pair[1] for pair in one[::3]]
        by_ids = {"vector_cosine": {**body, "filter": {"ids": {"values": ids}}}}
        assert scores(server, name, by_ids) == one[::3]
        count = server("POST", f"{name}/_count", {"query": {"vector_cosine": body}})["count"]
        assert count == len(one)


def test_cosine_with_boost_explain_and_name(server: Server, name: str) -> None:
    add_vectors(server, name, "flat", shards=1)
    vector = np.ones(DIM, np.int8)
    server("PUT", f"{name}/_doc/1", {"id": "1", "image_vector": vector.tolist()})
    server("PUT", f"{name}/_doc/2?refresh=true", {"id": "2"})
    query = {"field": "image_vector", "vector": text(-vector), "boost": 4, "_name": "far"}
    [hit] = server.search(name, {"vector_cosine": query})["hits"]["hits"]
    assert (hit["_score"], hit["matched_queries"]) == (0, ["far"])

    def explain(key: str, query: dict[str, Any]) -> tuple[bool, str]:
        answer = server("POST", f"{name}/_explain/{key}", {"query": {"vector_cosine": query}})
        return answer["matched"], json.dumps(answer["explanation"])

    matched, words = explain("1", query)
    assert matched
    assert '"value": -1.0, "description": "cosine of 40 numbers in field image_vector"' in words
    matched, words = explain("2", query)
    assert not matched
    assert "no vector in image_vector" in words
    matched, words = explain("1", {**query, "filter": {"term": {"id": "2"}}})
    assert not matched
    assert "does not match the filter" in words


GOOD = text(np.ones(DIM, np.int8))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"field": "image_vector"}, "requires [field] and [vector]"),
        ({"vector": GOOD}, "requires [field] and [vector]"),
        ({"field": "image_vector", "vector": text(np.ones(8, np.int8))}, "has 8 numbers"),
        ({"field": "image_vector", "vector": "!"}, "is not base64"),
        ({"field": "image_vector", "vector": [1, 200]}, "from -128 to 127, found 200"),
        ({"field": "image_vector", "vector": 5}, "must be base64 or a list"),
        ({"field": 5, "vector": GOOD}, "[field] must be a name"),
        ({"field": "image_vector", "vector": GOOD, "k": 1}, "unknown key [k]"),
        ({"field": "image_vector", "vector": GOOD, "filter": 1}, "[filter] must be a query"),
        ({"field": "nowhere", "vector": GOOD}, "no field [nowhere]"),
        ({"field": "tag", "vector": GOOD}, "is a keyword, not a vector field"),
        ({"field": "image_code", "vector": GOOD}, "holds vectors that are not bytes"),
        ({"field": f"{PATH}.vector", "vector": GOOD}, "put this query into a nested query"),
    ],
)
def test_invalid_query_is_a_400_with_a_reason(
    server: Server, name: str, query: dict[str, Any], reason: str
) -> None:
    add_vectors(server, name, "flat", shards=1)
    with pytest.raises(Refused) as refused:
        server.search(name, {"vector_cosine": query})
    assert refused.value.status == 400
    assert reason in json.loads(refused.value.body)["error"]["root_cause"][0]["reason"]

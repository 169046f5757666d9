"""Helpers of the plugin tests: an HTTP client, indices of codes, results expected by numpy."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Code = npt.NDArray[np.uint8]
BY_ID = [{"_score": "desc"}, {"id": "asc"}]


class Refused(Exception):
    """An answer with an HTTP error status."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body[:2000]}")
        self.status = status
        self.body = body


@dataclass
class Server:
    """Minimal client: the tests state each HTTP request in full."""

    url: str

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/{path}",
            data=None if body is None else data,
            method=method,
            headers={"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode()) from None

    def search(self, index: str, query: dict[str, Any], **more: Any) -> Any:
        body = {"query": query, "_source": False, **more}
        answer = self("POST", f"{index}/_search", body)
        assert answer["_shards"]["failed"] == 0, answer["_shards"]
        return answer

    def stats(self) -> dict[str, Any]:
        """The cache statistics of the plugin, summed over nodes."""
        total: dict[str, Any] = {"estimated": 0, "tripped": 0}
        for node in self("GET", "_plugins/_hamming/stats")["nodes"].values():
            for key in ("cache_entries", "size_in_bytes", "loaded", "hits", "misses", "fallbacks"):
                total[key] = total.get(key, 0) + node[key]
            total["estimated"] += node["breaker"]["estimated_in_bytes"]
            total["tripped"] += node["breaker"]["tripped"]
        return total


def code_field(bits: int, storage: str) -> dict[str, Any]:
    mapping: dict[str, Any] = {"type": "knn_vector", "dimension": bits, "data_type": "binary"}
    mapping["space_type"] = "hamming"
    if storage != "flat":
        parameters = {"m": 16, "ef_construction": 100}
        mapping["method"] = {"name": "hnsw", "engine": storage, "parameters": parameters}
    return mapping


def vector_field(dimension: int, storage: str) -> dict[str, Any]:
    """Return the mapping of a field of byte vectors."""
    mapping: dict[str, Any] = {"type": "knn_vector", "dimension": dimension, "data_type": "byte"}
    if storage != "flat":
        parameters = {"m": 16, "ef_construction": 100}
        mapping["space_type"] = "l2"
        mapping["method"] = {"name": "hnsw", "engine": storage, "parameters": parameters}
    return mapping


def create(
    server: Server, name: str, bits: int, storage: str = "flat", shards: int = 1, **settings: Any
) -> None:
    index: dict[str, Any] = {"number_of_shards": shards, "number_of_replicas": 0, **settings}
    index["refresh_interval"] = "-1"
    if storage != "flat":
        index["knn"] = True
    if storage == "faiss":  # without a graph no native library is needed
        index["knn.advanced.approximate_threshold"] = -1
    properties = {
        "id": {"type": "keyword"},
        "tag": {"type": "keyword"},
        "n": {"type": "integer"},
        "image_code": code_field(bits, storage),
        "text_code": code_field(bits, storage),
    }
    server("PUT", name, {"settings": {"index": index}, "mappings": {"properties": properties}})


@dataclass
class Model:
    """Expected content of the index, and expected distances by numpy."""

    bits: int
    image: dict[str, Code] = field(default_factory=dict)
    text: dict[str, Code] = field(default_factory=dict)
    tag: dict[str, str] = field(default_factory=dict)

    def distances(
        self, codes: list[Code], fields: tuple[str, ...] = ("image",), tag: str | None = None
    ) -> list[tuple[int, str]]:
        """(distance, id) of every document with a code, by the tie rule."""
        found: dict[str, int] = {}
        for name in fields:
            for key, code in getattr(self, name).items():
                if tag is None or self.tag[key] == tag:
                    distance = min(int(np.bitwise_count(code ^ query).sum()) for query in codes)
                    found[key] = min(found.get(key, self.bits), distance)
        return sorted((distance, key) for key, distance in found.items())


def lines(model: Model, keys: list[str]) -> str:
    """Return the bulk body that stores the documents of ``keys``."""
    out = []
    for key in keys:
        document: dict[str, Any] = {"id": key, "tag": model.tag[key], "n": int(key) % 7}
        if key in model.image:
            document["image_code"] = model.image[key].view(np.int8).tolist()
        if key in model.text:
            document["text_code"] = model.text[key].view(np.int8).tolist()
        out += [json.dumps({"index": {"_id": key}}), json.dumps(document)]
    return "\n".join(out) + "\n"


def bulk(server: Server, name: str, body: str, refresh: bool = False) -> None:
    answer = server("POST", f"{name}/_bulk?refresh={str(refresh).lower()}", body)
    assert not answer["errors"], [
        item for item in answer["items"] if "error" in next(iter(item.values()))
    ]


def put(
    rng: np.random.Generator,
    model: Model,
    keys: list[str],
    image: float = 0.9,
    text: float = 0.3,
) -> None:
    """Set random codes for a share of ``keys``. Few distinct bytes give many ties."""
    for key in keys:
        for codes, share in ((model.image, image), (model.text, text)):
            codes.pop(key, None)
            if rng.random() < share:
                codes[key] = rng.choice(
                    np.array([0, 1, 3, 255], np.uint8), size=model.bits // 8
                ).astype(np.uint8)
        model.tag[key] = "red" if rng.random() < 0.5 else "blue"


def found(answer: Any) -> list[tuple[int, str]]:
    """Return (distance, id) of each hit, in the order of the answer."""
    return [(round(1 / h["_score"] - 1), h["_id"]) for h in answer["hits"]["hits"]]


def check(server: Server, name: str, model: Model, rng: np.random.Generator) -> None:
    """Run one random query in all its forms and compare the results with numpy."""
    codes = [
        rng.choice(np.array([0, 1, 3, 255], np.uint8), size=model.bits // 8).astype(np.uint8)
        for _ in range(int(rng.integers(1, 4)))
    ]
    fields = [("image",), ("text",), ("image", "text")][int(rng.integers(3))]
    tag = [None, "red"][int(rng.integers(2))]
    size = int(rng.choice([1, 10, 1000]))
    radius = int(rng.integers(model.bits + 1))
    query: dict[str, Any] = {
        "fields": [f"{f}_code" for f in fields],
        "codes": [c.tobytes().hex() for c in codes],
    }
    expected = model.distances(codes, fields, tag)
    within = [pair for pair in expected if pair[0] <= radius]
    if tag:
        query["filter"] = {"term": {"tag": tag}}
    near = {"hamming": {**query, "max_distance": radius}}
    for track in (False, True, 5):
        more = {"size": size, "sort": BY_ID, "track_scores": True, "track_total_hits": track}
        answer = server.search(name, {"hamming": query}, **more)
        assert found(answer) == expected[:size], (track, query)
        assert found(server.search(name, near, **more)) == within[:size], (track, radius, query)
        if track is True:
            assert answer["hits"]["total"]["value"] == len(expected)
    plain = found(server.search(name, {"hamming": query}, size=size))
    assert [d for d, _ in plain] == [d for d, _ in expected[:size]]
    # As a clause of another query it is scored document by document (HammingScorer).
    both = {"bool": {"must": [near], "filter": [{"range": {"n": {"lt": 4}}}]}}
    some = [pair for pair in within if int(pair[1]) % 7 < 4]
    assert found(server.search(name, both, size=size, sort=BY_ID)) == some[:size]
    assert server("POST", f"{name}/_count", {"query": near})["count"] == len(within)
    assert server("POST", f"{name}/_count", {"query": {"hamming": query}})["count"] == len(expected)
    others = {"bool": {"must_not": [near], "filter": [{"exists": {"field": "id"}}]}}
    count = server("POST", f"{name}/_count", {"query": others})["count"]
    assert count == len(model.tag) - len(within)
